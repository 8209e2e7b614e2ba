// All tasks of a run as a table that keeps up, can be filtered and chosen from.

import { h, put, say } from './dom.js';
import { badge, bytes, clock, count, figure, outcome, time } from './words.js';

export function tasks(run, select) {
  let only = null;
  let marked = null;
  const field = h('input', { type: 'search', placeholder: 'name, stage or state', 'aria-label': 'Filter tasks', on: { input: () => draw() } });
  const shown = h('p', { class: 'soft', role: 'status' });
  const body = h('tbody');
  const head = [['State'], ['Task'], ['Progress', 'wide'], ['Start', 'num rest'], ['Time', 'num'], ['Tries', 'num rest'], ['Where'], ['Peak memory', 'num rest'], ['Ended', 'rest']];
  const node = h('section', { class: 'sheet', 'aria-labelledby': 'tasks' },
    h('div', { class: 'title' }, h('h2', { id: 'tasks' }, 'Tasks'), shown, h('div', { class: 'tools' }, field)),
    h('div', { class: 'scroll tall', tabindex: '0', role: 'region', 'aria-label': 'Tasks, scrollable' },
      h('table', { class: 'list cards tasks' }, h('caption', { class: 'hidden' }, 'Tasks of the run'),
        h('thead', {}, h('tr', {}, head.map(([word, kind]) => h('th', { scope: 'col', class: kind }, word)))), body)));

  const rows = run.tasks.map((task) => {
    const cells = head.map(([, kind]) => h('td', { class: kind }));
    const button = h('button', { type: 'button', class: 'plain', title: task.name, on: { click: () => select(task.index) } }, task.name);
    cells[1].append(button);
    cells[1].className = 'name';
    return { task, cells, tr: h('tr', { on: { click: (event) => event.target.closest('button') || select(task.index) } }, cells), as: '' };
  });
  put(body, rows.map((row) => row.tr));

  function fill(row) {
    const { task, cells } = row;
    const last = task.attempts[task.attempts.length - 1];
    const progress = task.heard?.progress;
    const done = task.state === 'running' ? progress?.progress : null;
    const as = [task.state, task.attempts.length, last?.outcome, last?.started, done, progress?.phase, progress?.loss, progress?.accuracy].join('|');
    if (row.as === as) return;
    row.as = as;
    put(cells[0], badge(task.state));
    const words = [];
    if (progress?.phase) words.push(progress.phase);
    if (progress?.loss !== null && progress?.loss !== undefined) words.push(`loss ${figure(progress.loss)}`);
    if (progress?.accuracy !== null && progress?.accuracy !== undefined) words.push(`acc ${(100 * progress.accuracy).toFixed(1)} %`);
    put(cells[2], task.state === 'running' ? [
      h('progress', { max: '1', value: done ?? null, 'aria-label': `Progress of ${task.name}` }),
      h('span', { class: 'soft' }, done === null || done === undefined ? '' : `${Math.floor(100 * done)} % `, words.join(', '))] : null);
    say(cells[3], last ? `+${clock(Date.parse(last.started) - run.started)}` : '');
    times(row);
    say(cells[5], task.attempts.length ? String(task.attempts.length) : '');
    say(cells[6], last ? last.devices.map((id) => id.split('/').pop()).join(', ') || 'cpu' : '');
    const memory = task.attempts.map((one) => one.peak_gpu_memory_bytes ?? one.peak_memory_bytes).filter((one) => one !== null);
    say(cells[7], memory.length ? bytes(Math.max(...memory)) : '');
    say(cells[8], last?.outcome && last.outcome !== 'succeeded' ? outcome(last.outcome) : '');
  }

  function times(row) {
    const last = row.task.attempts[row.task.attempts.length - 1];
    if (!last) return say(row.cells[4], '');
    const running = !last.finished && run.state === 'running';
    const ms = (last.finished ? Date.parse(last.finished) : Date.now()) - Date.parse(last.started);
    return say(row.cells[4], running ? clock(ms) : last.finished ? time(ms) : '');
  }

  function draw() {
    const wanted = field.value.trim().toLowerCase();
    let n = 0;
    for (const row of rows) {
      const { task } = row;
      const fits = (!only || task.state === only) && (!wanted || `${task.name} ${task.stage} ${task.state}`.toLowerCase().includes(wanted));
      if (row.tr.hidden === fits) row.tr.hidden = !fits;
      n += fits;
      fill(row);
    }
    say(shown, n === rows.length ? count(n, 'task') : `${n.toLocaleString()} of ${count(rows.length, 'task')}${only ? `, ${only}` : ''}`);
  }

  return {
    node,
    draw,
    tick: () => rows.forEach((row) => row.task.state === 'running' && times(row)),
    wanted: () => only,
    only(state) {
      only = state;
      draw();
    },
    filter(stage) {
      field.value = stage;
      draw();
    },
    mark(index) {
      if (marked !== null) {
        rows[marked].tr.classList.remove('marked');
        rows[marked].cells[1].firstChild.removeAttribute('aria-current');
      }
      marked = index;
      rows[index].tr.classList.add('marked');
      rows[index].cells[1].firstChild.setAttribute('aria-current', 'true');
    },
  };
}
