// node-llama-cpp, which includes a compiled llama.cpp.
// npm: node-llama-cpp@3.22.1
// VARIANTS = {"Q8_0": "llama.cpp, Q8_0", "F16": "llama.cpp, F16"}
// PROVIDES = ()
// REQUIRES = ("gguf",)

import { require, serve, version } from "./lib/worker.mjs";

await serve(async ({ variant, models, threads }) => {
  const { getLlama } = await import(require.resolve("node-llama-cpp"));
  const llama = await getLlama({ gpu: false, build: "never", maxThreads: threads, logLevel: "error" });
  const model = await llama.loadModel({ modelPath: `${models.gguf}/${variant}.gguf` });
  const context = await model.createEmbeddingContext({ contextSize: 512, batchSize: 512, threads });
  const embed = async (texts) =>
    Promise.all(
      texts.map(async (text) => {
        const ids = model.tokenize(text, true);
        const cut = ids.length > 256 ? [...ids.slice(0, 255), ids[ids.length - 1]] : ids;
        const { vector } = await context.getEmbeddingFor(cut);
        const length = Math.hypot(...vector);
        return vector.map((value) => value / length);
      }),
    );
  return { embed, versions: { "node-llama-cpp": version("node-llama-cpp"), precision: variant }, batches: [1, 32] };
});
