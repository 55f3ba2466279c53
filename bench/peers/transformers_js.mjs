// Transformers.js on Node.
// npm: @huggingface/transformers@4.3.2 onnxruntime-node@1.30.0
// VARIANTS = {"q8": "Transformers.js on Node, q8", "fp32": "Transformers.js on Node, FP32"}
// PROVIDES = ()
// REQUIRES = ("onnx", "onnx-int8")

import { basename, dirname } from "node:path";
import { require, serve, version } from "./lib/worker.mjs";

const FOLDERS = { q8: "onnx-int8", fp32: "onnx" };

await serve(async ({ variant, models, threads }) => {
  const { env, pipeline } = require("@huggingface/transformers");
  const folder = models[FOLDERS[variant]];
  env.allowRemoteModels = false;
  env.localModelPath = dirname(folder);
  const extract = await pipeline("feature-extraction", basename(folder), {
    dtype: variant,
    device: "cpu",
    subfolder: "",
    session_options: { intraOpNumThreads: threads, interOpNumThreads: 1 },
  });
  Object.defineProperty(extract.tokenizer, "model_max_length", { value: 256 }); // its file says 512
  const embed = async (texts) => {
    const { dims, data } = await extract(texts, { pooling: "mean", normalize: true });
    return texts.map((_, row) => data.slice(row * dims[1], (row + 1) * dims[1]));
  };
  const names = ["@huggingface/transformers", "onnxruntime-node"];
  const versions = Object.fromEntries(names.map((name) => [name, version(name)]));
  return { embed, versions: { ...versions, precision: variant }, batches: [1, 2, 4, 8, 16, 32] };
});
