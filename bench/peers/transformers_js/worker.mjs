// Transformers.js in a process of its own; speaks the protocol of ov_minilm/bench/worker.py.
// Started as: node worker.mjs FOLDER, FOLDER being the one that holds node_modules.

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname } from "node:path";
import { createInterface } from "node:readline";

const require = createRequire(process.argv[2] + "/");
const BATCHES = [1, 2, 4, 8, 16, 32];
const FOLDERS = { q8: "onnx-int8", fp32: "onnx" };

let embed;
const batches = new Map(); // the best batch size of each list
const lists = new Map();

function read(path) {
  if (!lists.has(path)) lists.set(path, JSON.parse(readFileSync(path, "utf8")));
  return lists.get(path);
}

// Encode in batches of texts of like length, longest first; return vectors [N][D] in the order of the texts.
async function run(texts, batch) {
  const order = texts.map((_, i) => i).sort((a, b) => texts[b].length - texts[a].length);
  const vectors = new Array(texts.length);
  for (let start = 0; start < order.length; start += batch) {
    const places = order.slice(start, start + batch);
    const found = await embed(places.map((i) => texts[i]), { pooling: "mean", normalize: true });
    const [, dim] = found.dims;
    places.forEach((i, row) => (vectors[i] = found.data.slice(row * dim, (row + 1) * dim)));
  }
  return vectors;
}

async function timed(work) {
  const started = performance.now();
  await work();
  return (performance.now() - started) / 1000;
}

const answers = {
  async load({ variant, models, threads }) {
    const seconds = await timed(async () => {
      const { env, pipeline } = require("@huggingface/transformers");
      const folder = models[FOLDERS[variant]];
      env.allowRemoteModels = false;
      env.localModelPath = dirname(folder);
      embed = await pipeline("feature-extraction", basename(folder), {
        dtype: variant,
        device: "cpu",
        subfolder: "",
        session_options: { intraOpNumThreads: threads, interOpNumThreads: 1 },
      });
      Object.defineProperty(embed.tokenizer, "model_max_length", { value: 256 }); // its file says 512
      await run(["one text"], 1);
    });
    const version = (name) => require(`${process.argv[2]}/node_modules/${name}/package.json`).version;
    const names = ["@huggingface/transformers", "onnxruntime-node"];
    const facts = Object.fromEntries(names.map((name) => [name, version(name)]));
    return { seconds, facts: { ...facts, node: process.version, precision: variant } };
  },

  async tune({ texts, first }) {
    const list = read(texts).slice(0, first);
    const tried = [];
    for (const batch of BATCHES) {
      await run(list.slice(0, batch), batch);
      const runs = [await timed(() => run(list, batch)), await timed(() => run(list, batch))];
      tried.push({ batch, seconds: Math.min(...runs) });
    }
    const best = tried.reduce((a, b) => (b.seconds < a.seconds ? b : a));
    batches.set(texts, best.batch);
    return { batch: best.batch };
  },

  async time({ texts, calls }) {
    const seconds = [];
    for (let call = 0; call < calls; call++) {
      seconds.push(await timed(() => run(read(texts), batches.get(texts) ?? BATCHES[0])));
    }
    return { seconds };
  },

  async vectors({ texts, out }) {
    const vectors = await run(read(texts), batches.get(texts) ?? BATCHES[0]);
    const flat = Float32Array.from(vectors.flatMap((vector) => [...vector]));
    writeFileSync(out, Buffer.from(flat.buffer));
    return { shape: [vectors.length, vectors[0].length] };
  },

  async memory() {
    return { peak_mb: (process.resourceUsage().maxRSS * 1024) / 1e6, now_mb: process.memoryUsage().rss / 1e6 };
  },
};

for (const noisy of ["log", "info", "debug"]) console[noisy] = console.error; // stdout is for answers only

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    const request = JSON.parse(line);
    answer = await answers[request.do](request);
  } catch (error) {
    answer = { error: `${error.name}: ${error.message}` };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
