// Limits of a rule, and how descriptors read in one line. The text of limits comes
// with the rules.

export const limitsOf = (node) => node.rate_limits ?? (node.rate_limit ? [node.rate_limit] : []);

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
