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

async function call(method, path, { body, headers = {} } = {}) {
  const token = sessionStorage.getItem(tokenKey);
  const answer = await fetch(path, {
    method,
    cache: 'no-store',
    headers: {
      ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
      ...(token ? { Authorization: `Bearer ${token}` } : {}),
      ...headers,
    },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await answer.text();
  let data;
  try {
    data = JSON.parse(text);
  } catch {
    data = { title: text || answer.statusText, status: answer.status };
  }
  if (!answer.ok) throw new Failure({ status: answer.status, ...data });
  return { data, etag: answer.headers.get('ETag') };
}

const query = (values) => {
  const given = Object.entries(values).filter(([, v]) => v);
  return given.length ? '?' + new URLSearchParams(given) : '';
};

export const rules = () => call('GET', 'admin/rules');
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
