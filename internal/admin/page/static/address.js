// What the page shows is in its address, behind the #: a path and parameters, such as
// #/rules?filter=edge. It is never sent to a server.

export function current() {
  const [path, params] = location.hash.replace(/^#\/?/, '').split(/\?(.*)/s);
  return { path: path.split('/').map(decodeURIComponent), params: new URLSearchParams(params) };
}

// href is the address of a path. Parameters are names and values; a value may be a list.
export function href(path, params = {}) {
  const given = Object.entries(params).flatMap(([name, value]) => [value].flat().filter(Boolean).map((v) => [name, v]));
  return `#/${path}${given.length ? `?${new URLSearchParams(given)}` : ''}`;
}

// replace notes what the view shows now, without opening it anew.
export const replace = (path, params) => history.replaceState(null, '', href(path, params));
