// The list of runs, the newest first, as it changes.

import { announce, h, put, say } from './dom.js';
import { ago, badge, bar, clock, count, time, when } from './words.js';
import { listen } from './live.js';

export async function runs(place, { go }) {
  let all = [];
  let states = new Map();
  const chosen = new Set();
  const summary = h('p', { class: 'lead' });
  const filter = h('input', { type: 'search', placeholder: 'pipeline, id or state', 'aria-label': 'Filter runs',
    on: { input: draw } });
  const compare = h('button', { type: 'button', disabled: true, on: { click: open } }, 'Compare two');
  const body = h('tbody');
  const table = h('table', { class: 'list cards' },
    h('caption', { class: 'hidden' }, 'Recorded runs, the newest first'),
    h('thead', {}, h('tr', {}, [['', 'pick'], ['State'], ['Pipeline'], ['Tasks', 'wide'], ['Started'], ['Time', 'num']]
      .map(([word, kind]) => h('th', { scope: 'col', class: kind }, word || h('span', { class: 'hidden' }, 'Compare'))))),
    body);
  const none = h('p', { class: 'note', hidden: true });
  put(place, h('div', { class: 'head' }, h('div', {}, h('h1', {}, 'Runs'), summary), h('div', { class: 'tools' }, filter, compare)),
    h('div', { class: 'sheet' }, table, none));

  function open() {
    // The older one is what the newer one is compared with.
    const [b, a] = all.filter((run) => chosen.has(run.run)).map((run) => run.run);
    go(`/compare?a=${encodeURIComponent(a)}&b=${encodeURIComponent(b)}`);
  }

  function choose(run, wanted) {
    if (wanted) chosen.add(run);
    else chosen.delete(run);
    while (chosen.size > 2) chosen.delete(chosen.values().next().value);
    for (const box of body.querySelectorAll('input')) box.checked = chosen.has(box.value);
    compare.disabled = chosen.size !== 2;
  }

  function row(run) {
    const until = run.finished ? Date.parse(run.finished) : Date.now();
    const took = until - Date.parse(run.started);
    // Of a run whose record is damaged there are none.
    const tasks = Object.values(run.counts || {}).reduce((sum, n) => sum + n, 0);
    const done = run.counts && run.counts.succeeded + run.counts.cached;
    return h('tr', {},
      h('td', { class: 'pick' }, h('input', { type: 'checkbox', value: run.run, checked: chosen.has(run.run),
        'aria-label': `Compare ${run.run}`, on: { change: (event) => choose(run.run, event.target.checked) } })),
      h('td', {}, badge(run.state)),
      h('td', { class: 'name' }, h('a', { href: `/runs/${encodeURIComponent(run.run)}` }, run.pipeline),
        h('span', { class: 'id' }, run.run)),
      run.counts ? h('td', { class: 'wide' }, bar(run.counts), h('span', { class: 'num soft' }, `${done.toLocaleString()} of ${count(tasks, 'task')}`))
        : h('td', { class: 'wide' }, 'its record is damaged'),
      h('td', { class: 'since', title: when(run.started) }, ago(run.started)),
      h('td', { class: 'num' }, run.state === 'running' ? clock(took) : run.finished ? time(took) : '–'));
  }

  function draw() {
    const wanted = filter.value.trim().toLowerCase();
    const shown = all.filter((run) => `${run.pipeline} ${run.run} ${run.state}`.toLowerCase().includes(wanted));
    const focused = document.activeElement && body.contains(document.activeElement) ? document.activeElement : null;
    const again = focused && (focused.value || focused.getAttribute('href'));
    put(body, shown.map(row));
    if (again) [...body.querySelectorAll('a, input')].find((node) => (node.value || node.getAttribute('href')) === again)?.focus();
    const running = all.filter((run) => run.state === 'running').length;
    say(summary, all.length ? `${count(all.length, 'run')}${running ? `, ${running} under way` : ''}` : '');
    none.hidden = shown.length > 0;
    table.hidden = shown.length === 0;
    say(none, all.length ? 'No run is called that.' : 'Nothing is recorded here yet. The first trainyard run will appear by itself.');
  }

  function take(said) {
    for (const run of said) {
      const before = states.get(run.run);
      if (before && before !== run.state) announce(`${run.pipeline} ${run.state}`);
    }
    states = new Map(said.map((run) => [run.run, run.state]));
    all = said;
    draw();
  }

  const leave = listen('/api/events', { runs: take });
  const tick = setInterval(() => all.some((run) => run.state === 'running') && draw(), 1000);
  return () => {
    clearInterval(tick);
    leave();
  };
}
