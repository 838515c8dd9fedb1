// What the service has told last, asked for again and again.

import * as api from './api.js';

const interval = 2000;

export const known = {
  replica: null,
  rules: [], // in the order in which they count, each with its text for filters
  byKey: new Map(), // key → rule
  byPath: new Map(), // domain and path → rule
  domains: [],
  writable: false,
  etag: null, // of the rules
  stats: new Map(), // key → statistics
  unmatched: { domains: [], descriptors: [] },
  service: {},
  reloads: null,
};

const place = (domain, path) => JSON.stringify([domain, path]);
export const ruleAt = (domain, path) => known.byPath.get(place(domain, path));

let told;

// start asks from now on, and calls tell after each time, with the failure if there was one.
export function start(tell) {
  told = tell;
  loop();
}

export async function refresh() {
  try {
    const [replica, rules, stats, reloads] = await Promise.all([api.replica(), api.rules(known.etag), api.stats(), api.reloads()]);
    if (rules.data) learn(rules.data);
    Object.assign(known, {
      etag: rules.etag, replica: replica.data, reloads: reloads.data, service: stats.data.service,
      unmatched: stats.data.unmatched, stats: new Map(stats.data.rules.map((s) => [s.key, s])),
    });
    told(null);
  } catch (failure) {
    told(failure);
  }
}

function learn({ rules, domains, writable }) {
  for (const r of rules) r.text = [r.domain, r.path, ...r.entries.flatMap((e) => [`${e.key}=${e.value}`]), r.limits, r.location, ...(r.adjusted ?? []).map((a) => `adjusted by ${a.by}`), r.key, JSON.stringify(r.rule)].join(' ').toLowerCase();
  Object.assign(known, {
    rules, domains, writable,
    byKey: new Map(rules.map((r) => [r.key, r])),
    byPath: new Map(rules.map((r) => [place(r.domain, r.path), r])),
  });
}

async function loop() {
  const begin = performance.now();
  await refresh();
  // A page of many rules on a slow line asks less often.
  setTimeout(loop, Math.max(document.hidden ? 10 * interval : interval, 5 * (performance.now() - begin)));
}
