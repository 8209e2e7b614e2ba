// Shows the page that the address means, and goes from one to the other without loading anew.

import { announce, ask, h, put } from './dom.js';
import { runs } from './runs.js';
import { run } from './run.js';
import { devices } from './devices.js';
import { compare } from './compare.js';

const main = document.getElementById('main');
let leave = null;
let turn = 0;

/** What is known of the server: its version, and whether anything can be changed. */
let about = { writes: false };

function pageOf(path) {
  const found = /^\/runs\/([^/]+)$/.exec(path);
  if (found) return [run, decodeURIComponent(found[1])];
  if (path === '/devices') return [devices];
  if (path === '/compare') return [compare];
  return [runs];
}

async function show(first) {
  turn += 1;
  const own = turn;
  if (leave) leave();
  leave = null;
  const [page, what] = pageOf(location.pathname);
  for (const link of document.querySelectorAll('.top nav a')) {
    const here = link.getAttribute('href') === location.pathname;
    const inRuns = page === run && link.getAttribute('href') === '/';
    if (here || inRuns) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  const place = h('div', { class: 'page' });
  put(main, place);
  try {
    const left = await page(place, { about, what, query: new URLSearchParams(location.search), go });
    if (own === turn) leave = left;
    else if (left) left();
  } catch (error) {
    if (own !== turn) return;
    put(place, h('h1', {}, 'Nothing to show'), h('p', { class: 'note' }, error.message),
      h('p', {}, h('a', { href: '/' }, 'All runs')));
  }
  if (own !== turn) return;
  const heading = main.querySelector('h1');
  document.title = heading ? `${heading.textContent} · Trainyard` : 'Trainyard';
  if (!first) {
    main.focus({ preventScroll: true });
    scrollTo(0, 0);
    announce(document.title);
  }
}

/** Goes to another page. */
function go(path) {
  history.pushState(null, '', path);
  show(false);
}

document.addEventListener('click', (event) => {
  const link = event.target.closest('a');
  const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
  if (!link || !plain || link.origin !== location.origin || link.hash || link.hasAttribute('download')) return;
  if (link.pathname.startsWith('/api/')) return;
  event.preventDefault();
  go(link.pathname + link.search);
});
addEventListener('popstate', () => show(false));

const theme = document.getElementById('theme');
const isDark = () => {
  const set = document.documentElement.dataset.theme;
  return set ? set === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
};
function paint() {
  theme.textContent = isDark() ? 'Light' : 'Dark';
  theme.setAttribute('aria-label', `Show ${isDark() ? 'light' : 'dark'} colours`);
}
theme.addEventListener('click', () => {
  document.documentElement.dataset.theme = isDark() ? 'light' : 'dark';
  localStorage.setItem('theme', document.documentElement.dataset.theme);
  paint();
});
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', paint);
const kept = localStorage.getItem('theme');
if (kept === 'dark' || kept === 'light') document.documentElement.dataset.theme = kept;
paint();

ask('/api/about').then(({ said }) => { about = said; }, () => {}).then(() => show(true));
