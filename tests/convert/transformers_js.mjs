// The vectors that Transformers.js makes, as its documentation shows: node transformers_js.mjs PACKAGES MODEL TEXTS OUT

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname } from "node:path";

const [packages, model, texts, out] = process.argv.slice(2);
const { env, pipeline } = createRequire(`${packages}/`)("@huggingface/transformers");
env.allowRemoteModels = false;
env.localModelPath = dirname(model);

const embed = await pipeline("feature-extraction", basename(model), { dtype: "fp32", device: "cpu" });
const vectors = [];
for (const text of JSON.parse(readFileSync(texts, "utf8"))) {
  const { data } = await embed(text, { pooling: "mean", normalize: true });
  vectors.push(Array.from(data));
}
writeFileSync(out, JSON.stringify(vectors));
