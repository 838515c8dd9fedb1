// The page: its address says which view is shown, and what the service tells goes to
// the header and to that view.

import * as api from './api.js';
import { current } from './address.js';
import { $, el, update } from './dom.js';
import { explainView } from './explain.js';
import { header } from './header.js';
import { known, refresh, start } from './known.js';
import { liveView } from './live.js';
import { overview } from './overview.js';
import { reloadsView } from './reloads.js';
import { ruleView } from './rule.js';
import { rulesView } from './rules.js';

// Views by the first part of the address. Each makes an element, which update fills
// with what is known; close ends what else it does.
const views = { '': overview, rules: (address) => (address.path[1] ? ruleView : rulesView)(address), live: liveView, explain: explainView, reloads: reloadsView };

let view;

function open() {
  if (location.hash && !location.hash.startsWith('#/')) return;
  const address = current();
  const name = address.path[0] in views ? address.path[0] : '';
  view?.close?.();
  view = views[name](address);
  document.title = `${view.title} · DistLimiter`;
  $('main').replaceChildren(view.node);
  for (const link of document.querySelectorAll('#views a')) {
    if (link.getAttribute('href') === `#/${name}`) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  if (known.reloads) view.update();
}

function tell(failure) {
  $('login').hidden = failure?.problem?.status !== 401;
  $('main').hidden = !known.reloads;
  if (failure) {
    $('state').textContent = '';
    say(failure.problem?.status === 401 ? 'sign in to see the rules' : `no answer: ${failure.message}`);
    return;
  }
  say('');
  update($('domains'), known.domains, () => known.domains.map((d) => el('option', { value: d.domain })));
  header();
  view.update();
}

// say tells what somebody should hear, once: rates change all the time, and are not
// for being read out.
function say(text) {
  if ($('message').textContent !== text) $('message').textContent = text;
}

addEventListener('hashchange', () => {
  open();
  const heading = $('main').querySelector('h2') ?? $('main'); // tells a screen reader where it is now
  heading.tabIndex = -1;
  heading.focus({ preventScroll: true });
  scrollTo(0, 0);
});
document.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault(); // the part behind the # is the view's
  $('main').focus();
});
$('login').addEventListener('submit', (event) => {
  event.preventDefault();
  api.setToken($('token').value);
  refresh();
});
open();
start(tell);
