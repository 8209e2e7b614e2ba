// Two runs beside each other: what their tasks are made of, how they ended, how long they took, their last figures.

import { ask, h, put, s, say } from './dom.js';
import { lanes } from './gantt.js';
import { badge, count, figure, key, middle, outcome, time, when } from './words.js';

/** From here on a difference in time is worth a word: less is noise. */
const [PART, LEAST] = [0.1, 100];

const telling = (a, b) => Math.abs(a - b) >= LEAST && Math.abs(a - b) >= PART * Math.max(a, b);
const ended = (of) => (of ? of.outcome || of.state : '');
const isSpeed = (name) => name.includes('/s') || name.includes('second') || name.includes('runtime');

function changed({ a, b, changes }) {
  if (!a || !b || changes?.length) return true;
  if (ended(a) !== ended(b) || a.attempts !== b.attempts) return true;
  if (a.time_ms !== null && b.time_ms !== null && telling(a.time_ms, b.time_ms)) return true;
  return Object.keys({ ...a.figures, ...b.figures }).some((name) => !isSpeed(name) && a.figures[name] !== b.figures[name]);
}

function change(a, b) {
  if (a === null || b === null || a === undefined || b === undefined) return '';
  if (!telling(a, b)) return h('span', { class: 'soft' }, '±');
  const percent = a ? Math.round((100 * (b - a)) / a) : 0;
  return h('span', { class: b < a ? 'better' : 'worse' }, `${b < a ? '▼' : '▲'} ${time(Math.abs(b - a))}${a ? ` (${percent > 0 ? '+' : ''}${percent} %)` : ''}`);
}

function figures(a, b) {
  const names = Object.keys({ ...(a?.figures || {}), ...(b?.figures || {}) });
  return names.slice(0, 6).map((name) => {
    const [one, other] = [a?.figures[name], b?.figures[name]];
    return h('div', {}, h('span', { class: 'soft' }, `${name} `), one === other ? figure(one) : `${figure(one) || '–'} → ${figure(other) || '–'}`);
  });
}

function row(pair) {
  const { a, b } = pair;
  const words = a && b ? (ended(a) === ended(b) ? badge(b.state, outcome(ended(b))) : [badge(a.state, outcome(ended(a))), ' → ', badge(b.state, outcome(ended(b)))])
    : h('span', {}, a ? 'only in the first' : 'only in the second');
  return h('tr', {}, h('th', { scope: 'row', class: 'name' }, pair.name), h('td', {}, words), h('td', { class: 'num' }, time(a?.time_ms)),
    h('td', { class: 'num' }, time(b?.time_ms)), h('td', { class: 'num' }, change(a?.time_ms, b?.time_ms)), h('td', {}, figures(a, b)));
}

/** Differences that are shown one by one. */
const MOST = 20;

/** What the pipeline file said otherwise, tasks with the same difference together. */
function definition(said) {
  const groups = new Map();
  for (const { name, changes } of said.tasks) {
    for (const one of changes || []) {
      const group = JSON.stringify(one);
      if (!groups.has(group)) groups.set(group, { ...one, tasks: [] });
      groups.get(group).tasks.push(name);
    }
  }
  const all = [...groups.values()].map((one) => [`${one.tasks[0]}${one.tasks.length > 1 ? ` and ${one.tasks.length - 1} more` : ''}`, one.key, one.a, one.b]);
  const [a, b] = [said.a.set.join('  '), said.b.set.join('  ')];
  if (a !== b) all.unshift(['the run', '--set', a || null, b || null]);
  const unknown = said.tasks.some((pair) => pair.changes === null);
  if (!all.length && !unknown) return '';
  const value = (text) => (text === null ? h('span', { class: 'soft' }, 'not set') : h('code', {}, text));
  const rows = all.slice(0, MOST).map(([who, what, first, second]) => h('tr', {}, h('th', { scope: 'row', class: 'name' }, who), h('td', {}, what), h('td', {}, value(first)), h('td', {}, value(second))));
  const words = unknown ? 'not known: the pipeline file of one was not kept' : all.length > MOST ? `and ${all.length - MOST} more` : '';
  return h('section', { class: 'sheet', 'aria-labelledby': 'definition' }, h('div', { class: 'title' }, h('h2', { id: 'definition' }, 'Definition'), h('p', { class: 'soft' }, words)),
    h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Definition, scrollable' }, h('table', { class: 'list' }, h('caption', { class: 'hidden' }, 'What the pipeline file said otherwise'),
      h('thead', {}, h('tr', {}, ['Task', 'Key', 'First', 'Second'].map((word) => h('th', { scope: 'col' }, word)))), h('tbody', {}, rows))));
}

const LABEL = 96;

/** A plan as a chart over a span that both share. */
function drawn(word, plan, took, span) {
  const wide = innerWidth < 720 ? 340 : 640;
  const rows = new Map();
  for (const task of plan.tasks) {
    for (const place of task.places) {
      if (!rows.has(place)) rows.set(place, []);
      rows.get(place).push({ task, from: task.start_ms, to: task.finish_ms });
    }
  }
  const x = (ms) => LABEL + ((wide - LABEL - 8) * ms) / span;
  let y = 4;
  const parts = [...rows].sort((a, b) => a[0].localeCompare(b[0], undefined, { numeric: true })).map(([place, spans]) => {
    const most = lanes(spans);
    const high = most <= 4 ? 12 : most <= 12 ? 6 : 3;
    const top = y;
    y += Math.max(16, most * (high + 1)) + 6;
    return [s('rect', { class: 'band', x: LABEL, y: top, width: wide - LABEL - 8, height: y - top - 6 }),
      s('text', { class: 'place', x: 0, y: top + 12 }, s('title', {}, place), middle(place, 14)),
      spans.map((one) => s('rect', { class: `plan${one.task.critical ? ' critical' : ''}`, x: x(one.from), y: top + one.lane * (high + 1) + 1,
        width: Math.max(1, x(one.to) - x(one.from) - 0.7), height: high, rx: high > 6 ? 2 : 0 },
      s('title', {}, `${one.task.name}: ${time(one.from)} to ${time(one.to)}`)))];
  });
  const end = s('path', { class: 'goal', d: `M${x(plan.makespan_ms)} 0V${y}` }, s('title', {}, `planned end, ${time(plan.makespan_ms)}`));
  const really = took === null ? null : s('path', { class: 'now', d: `M${x(took)} 0V${y}` }, s('title', {}, `it took ${time(took)}`));
  const words = `planned ${time(plan.makespan_ms)}${took === null ? '' : `, took ${time(took)}`}; ${plan.tasks.filter((task) => task.critical).length.toLocaleString()} of ${count(plan.tasks.length, 'task')} critical`;
  return h('figure', {}, h('figcaption', {}, h('strong', {}, word), h('span', { class: 'soft' }, ` ${words}`)),
    s('svg', { viewBox: `0 0 ${wide} ${y}`, role: 'img', 'aria-label': `${word} plan: ${words}` }, parts, end, really));
}

/** What was planned for both runs, over the same span of time. */
function plans([a, b], [first, second]) {
  const span = Math.max(a.makespan_ms, b.makespan_ms, first ?? 0, second ?? 0, 1);
  return h('section', { class: 'sheet', 'aria-labelledby': 'plans' }, h('div', { class: 'title' }, h('h2', { id: 'plans' }, 'Plans'),
    h('p', { class: 'soft keys' }, key('plan', 'planned'), key('critical', 'critical'), key('took', 'when it ended'))),
  h('div', { class: 'plans' }, drawn('First', a, first, span), drawn('Second', b, second, span)));
}

export async function compare(place, { query, go }) {
  const { said: all } = await ask('/api/runs');
  const second = all.find((run) => run.run === query.get('b')) || all[0];
  // What says most is what the same pipeline did before.
  const before = all.slice(all.indexOf(second) + 1);
  const first = before.find((run) => run.pipeline === second.pipeline) || before[0] || all[1];
  const wanted = [query.get('a') || first?.run, second?.run];
  const pick = (label, at) => h('label', {}, label, ' ', h('select', { on: { change: (event) => {
    wanted[at] = event.target.value;
    go(`/compare?a=${encodeURIComponent(wanted[0])}&b=${encodeURIComponent(wanted[1])}`);
  } } }, all.map((run) => h('option', { value: run.run, selected: run.run === wanted[at] }, `${run.pipeline}, ${when(run.started)} (${run.state})`))));
  put(place, h('div', { class: 'head' }, h('div', {}, h('h1', {}, 'Compare'), h('p', { class: 'lead' }, 'What changed from one run to another'))));
  if (all.length < 2) {
    place.append(h('p', { class: 'note' }, 'There have to be two runs to compare.'));
    return null;
  }
  const { said } = await ask(`/api/diff/${encodeURIComponent(wanted[0])}/${encodeURIComponent(wanted[1])}`);
  const planned = await Promise.all(wanted.map((run) => ask(`/api/runs/${encodeURIComponent(run)}/plan`)));
  const side = (of, word) => h('div', { class: 'side' }, h('p', { class: 'soft' }, word), h('p', {}, h('a', { href: `/runs/${encodeURIComponent(of.run)}` }, of.run)),
    h('p', {}, badge(of.state), of.took_ms === null ? '' : ` took ${time(of.took_ms)}`));
  const different = said.tasks.filter(changed);
  const body = h('tbody');
  const words = h('p', { class: 'soft', role: 'status' });
  const every = h('input', { type: 'checkbox', on: { change: draw } });
  function draw() {
    const shown = every.checked ? said.tasks : different;
    put(body, shown.map(row));
    say(words, `${count(said.tasks.length, 'task')}: ${different.length.toLocaleString()} changed, ${(said.tasks.length - different.length).toLocaleString()} alike`);
  }
  draw();
  const head = [['Task'], ['Ended'], ['First', 'num'], ['Second', 'num'], ['Change', 'num'], ['Figures']];
  place.append(h('div', { class: 'tools picks' }, pick('First', 0), pick('Second', 1)),
    h('div', { class: 'sides' }, side(said.a, 'first'), side(said.b, 'second'),
      h('div', { class: 'side' }, h('p', { class: 'soft' }, 'the whole'), h('p', { class: 'big' }, change(said.a.took_ms, said.b.took_ms) || '–'))),
    definition(said), plans(planned.map((one) => one.said), [said.a.took_ms, said.b.took_ms]),
    h('div', { class: 'sheet' }, h('div', { class: 'title' }, h('h2', {}, 'Tasks'), words, h('div', { class: 'tools' }, h('label', {}, every, 'also those alike'))),
      h('div', { class: 'scroll tall', tabindex: '0', role: 'region', 'aria-label': 'Tasks, scrollable' }, h('table', { class: 'list' }, h('caption', { class: 'hidden' }, 'Tasks of both runs'),
        h('thead', {}, h('tr', {}, head.map(([word, kind]) => h('th', { scope: 'col', class: kind }, word)))), body))));
  return null;
}
