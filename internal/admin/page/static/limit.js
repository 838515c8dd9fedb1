// How limits and descriptors read in one line.

export function limitText(l) {
  if (l.unlimited) return 'unlimited';
  const per = l.window ? `per ${l.window}` : `per ${l.unit ?? '?'}`;
  const parts = [`${(l.requests_per_unit ?? 0).toLocaleString('en')} ${per}`];
  if (l.sliding_window) parts[0] = `${l.sliding_window.requests_per_unit} per ${l.sliding_window.unit ?? l.sliding_window.window}`;
  if (l.token_bucket) parts.push(`bucket ${l.token_bucket.capacity} at ${l.token_bucket.refill_rate}`);
  if (l.burst) parts.push(`burst ${l.burst}`);
  if (l.strict) parts.push('strict');
  if (l.shadow_mode) parts.push('shadow');
  return `${l.algorithm ?? 'fixed_window'}: ${parts.join(', ')}`;
}

export const limitsOf = (node) => node.rate_limits ?? (node.rate_limit ? [node.rate_limit] : []);

export const ruleText = (node) => limitsOf(node).map(limitText).join('; ');

export const entryText = (e) => (e.value ? `${e.key}=${e.value}` : e.key);

// parseDescriptor reads key=value,key=value, with \ before what stands for itself.
export function parseDescriptor(text) {
  const entries = [];
  let entry = { key: '' };
  let field = 'key';
  for (let i = 0; i < text.length; i++) {
    let c = text[i];
    if (c === '\\' && i + 1 < text.length) c = text[++i];
    else if (c === ',') {
      entries.push(entry);
      entry = { key: '' };
      field = 'key';
      continue;
    } else if (c === '=' && field === 'key') {
      entry.value = '';
      field = 'value';
      continue;
    }
    entry[field] += c;
  }
  entries.push(entry);
  return entries;
}
