// The task that is looked at: why it is where it is, its attempts, its figures and what it prints.

import { ask, h, put, say, soon } from './dom.js';
import { badge, bytes, outcome, time, when } from './words.js';
import { chart } from './curves.js';
import { log } from './log.js';

export function detail(run, path, retry) {
  let index = null;
  let turn = 0;
  const state = h('span');
  const heading = h('h2', { id: 'task' });
  const why = h('p', { class: 'why' });
  const anew = h('button', { type: 'button', hidden: true, on: { click: retry } }, 'Try again…');
  const needs = h('ul', { class: 'needs' });
  const tries = h('div');
  const figures = h('div', { class: 'curves single' });
  const printed = log(path);
  const node = h('aside', { class: 'sheet detail', 'aria-labelledby': 'task' },
    h('div', { class: 'title' }, heading, state, h('div', { class: 'tools' }, anew)), why, needs, tries, figures, printed.node);

  async function read() {
    if (index === null) return;
    turn += 1;
    const own = turn;
    const task = `${path}/tasks/${index}`;
    const [{ said: one }, { said: explained }] = await Promise.all([ask(task), ask(`${task}/explain`)]);
    if (own !== turn) return;
    put(state, badge(one.state));
    say(why, explained.words);
    put(needs, explained.needs.slice(0, 6).map((need) => h('li', {}, badge(need.state), ' ', need.task)));
    anew.hidden = one.state !== 'failed' || run.state === 'running';
    put(tries, one.attempts.length ? h('div', { class: 'scroll' }, h('table', { class: 'list small' },
      h('caption', { class: 'hidden' }, 'Attempts'),
      h('thead', {}, h('tr', {}, ['Attempt', 'Ended', 'Time', 'Where', 'Reserved', 'Peak'].map((word) => h('th', { scope: 'col' }, word)))),
      h('tbody', {}, one.attempts.map((attempt) => h('tr', {},
        h('td', { title: when(attempt.started) }, attempt.number),
        h('td', {}, outcome(attempt.outcome), attempt.raised ? ` (${attempt.raised})` : ''),
        h('td', { class: 'num' }, attempt.finished ? time(Date.parse(attempt.finished) - Date.parse(attempt.started)) : ''),
        h('td', {}, attempt.devices.map((id) => id.split('/').pop()).join(', ') || 'cpu'),
        h('td', { class: 'num' }, bytes(attempt.gpu_memory_bytes) || '–'),
        h('td', { class: 'num' }, bytes(attempt.peak_gpu_memory_bytes ?? attempt.peak_memory_bytes) || '–')))))) : null);
    const last = one.attempts[one.attempts.length - 1];
    const series = last?.series || [];
    put(figures, series.map((each, hue) => chart(each.name, [{ ...each, name: each.name, index, hue }], 190)));
    printed.of(index, one.attempts.length, run.tasks[index].state);
  }

  const again = soon(() => read().catch((error) => say(why, error.message)), 700);
  return {
    node,
    show(task) {
      index = task;
      say(heading, run.tasks[task].name);
      printed.of(task, run.tasks[task].attempts.length, run.tasks[task].state);
      read().catch((error) => say(why, error.message));
    },
    changed(tasks) {
      if (tasks.includes(index)) again();
      else if (index !== null && run.tasks[index].state === 'waiting') again();
    },
    heard(tasks) {
      const own = tasks.find((one) => one.index === index);
      if (!own) return;
      printed.grew(own.attempt, own.log_bytes);
      if (own.progress) again();
    },
    waits: () => index !== null && run.tasks[index].state === 'waiting' && again(),
    leave: () => printed.leave(),
  };
}
