// The protocol of ov_minilm/measure/worker.py for peers on Node: `serve` answers requests until stdin closes.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

// Packages are in the folder that the first argument names; Node itself searches only next to the script.
export const require = createRequire(process.argv[2] + "/");
export const version = (name) => require(`${process.argv[2]}/node_modules/${name}/package.json`).version;

// load(request) returns { embed, versions, batches }; embed(texts) returns the vectors [N][D] of one batch.
export async function serve(load) {
  let embed, batches;
  const best = new Map(); // list of texts -> its fastest batch size
  const lists = new Map();
  const read = (path) => {
    if (!lists.has(path)) lists.set(path, JSON.parse(readFileSync(path, "utf8")));
    return lists.get(path);
  };

  // Sort by length and encode in batches, longest first; return vectors in the order of the texts.
  async function run(texts, batch) {
    const order = texts.map((_, i) => i).sort((a, b) => texts[b].length - texts[a].length);
    const vectors = new Array(texts.length);
    for (let start = 0; start < order.length; start += batch) {
      const places = order.slice(start, start + batch);
      const found = await embed(places.map((i) => texts[i]));
      places.forEach((i, row) => (vectors[i] = found[row]));
    }
    return vectors;
  }

  async function timed(texts, batch) {
    const started = performance.now();
    await run(texts, batch);
    return (performance.now() - started) / 1000;
  }

  const size = (texts) => best.get(texts) ?? batches[0];
  const answers = {
    async load(request) {
      const loaded = await load(request);
      ({ embed, batches } = loaded);
      await run(["one text"], 1);
      return { versions: { ...loaded.versions, node: process.version } };
    },
    async tune({ texts, first }) {
      if (best.has(texts)) return { batch: best.get(texts) };
      const list = read(texts).slice(0, first);
      let least = Infinity;
      for (const batch of batches) {
        await run(list.slice(0, batch), batch);
        const seconds = Math.min(await timed(list, batch), await timed(list, batch));
        if (seconds < least) [least] = [seconds, best.set(texts, batch)];
      }
      return { batch: size(texts) };
    },
    time: async ({ texts }) => ({ seconds: [await timed(read(texts), size(texts))] }),
    async each({ texts }) {
      const seconds = [];
      for (const text of read(texts)) seconds.push(await timed([text], 1));
      return { seconds };
    },
    async callers({ texts, callers }) {
      const seconds = [];
      const started = performance.now();
      const call = async (first) => {
        for (let i = first; i < read(texts).length; i += callers) seconds.push(await timed([read(texts)[i]], 1));
      };
      await Promise.all([...Array(callers).keys()].map(call));
      return { wall: (performance.now() - started) / 1000, seconds };
    },
    async during_list({ texts, list }) {
      const started = performance.now();
      const seconds = [];
      let done = 0;
      let over = false;
      const bulk = (async () => {
        for (; !over; done += read(list).length) await run(read(list), size(list));
      })();
      for (const text of read(texts)) {
        seconds.push(await timed([text], 1));
        if (performance.now() - started > 2000) break;
      }
      over = true;
      await bulk;
      return { texts_per_s: (1000 * done) / (performance.now() - started), seconds };
    },
    async vectors({ texts }) {
      return { vectors: (await run(read(texts), size(texts))).map((vector) => [...vector]) };
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
}
