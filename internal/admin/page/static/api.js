// The admin API, and nothing of how it is shown.

// A Failure holds the problem document of an answer that is no success.
export class Failure extends Error {
  constructor(problem) {
    super(problem.detail || problem.title || 'the request failed');
    this.problem = problem;
  }
}

const tokenKey = 'distlimiter-token';

export function setToken(token) { sessionStorage.setItem(tokenKey, token); }

async function send(method, path, { body, headers = {}, signal } = {}) {
  const token = sessionStorage.getItem(tokenKey);
  const answer = await fetch(path, {
    method,
    signal,
    cache: 'no-store',
    headers: {
      ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
      ...(token ? { Authorization: `Bearer ${token}` } : {}),
      ...headers,
    },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (answer.ok || answer.status === 304) return answer;
  const text = await answer.text();
  let problem;
  try {
    problem = JSON.parse(text);
  } catch {
    problem = { title: text || answer.statusText };
  }
  throw new Failure({ status: answer.status, ...problem });
}

async function call(...request) {
  const answer = await send(...request);
  // A proxy that compresses the answer makes its tag weak. It names the same rules, and If-Match takes no weak tag.
  const etag = answer.headers.get('ETag')?.replace(/^W\//, '');
  return { data: answer.status === 304 ? null : await answer.json(), etag };
}

const query = (values) => {
  const given = Object.entries(values).filter(([, v]) => v);
  return given.length ? '?' + new URLSearchParams(given) : '';
};

export const replica = () => call('GET', 'admin/replica');
// rules has no data if the rules are still those of the etag.
export const rules = (etag) => call('GET', 'admin/rules', { headers: etag ? { 'If-None-Match': etag } : {} });
export const stats = () => call('GET', 'admin/stats?history=1');
export const ruleStats = (key) => call('GET', `admin/stats/${key}`);
export const reloads = () => call('GET', 'admin/reloads');
export const explain = (domain, entries) => call('POST', 'admin/explain', { body: { domain, entries } });
export const counters = (domain, descriptor) => call('GET', 'admin/counters' + query({ domain, descriptor }));
export const reset = (body) => call('POST', 'admin/reset', { body });
export const apply = (domain, { dryRun, etag } = {}) =>
  call('POST', 'admin/rules' + query({ dry_run: dryRun ? '1' : '' }), { body: domain, headers: etag ? { 'If-Match': etag } : {} });
export const remove = (key, etag) =>
  call('DELETE', `admin/rules/${key}`, { headers: etag ? { 'If-Match': etag } : {} });

// watch calls on with the name and the data of each event of the live stream, until
// it ends or the signal aborts it. EventSource could not send the token.
export async function watch(filter, on, signal) {
  const answer = await send('GET', 'admin/live' + query(filter), { signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split('\n\n');
    rest = blocks.pop();
    for (const block of blocks) {
      const [, event, data] = /^event: (.*)\ndata: (.*)$/.exec(block) ?? [];
      if (event) on(event, JSON.parse(data));
    }
  }
}
