// One run while it happens: what was planned, what became of it, and the task that is looked at.

import { announce, ask, h, put, say, soon } from './dom.js';
import { STATES, badge, bar, clock, count, sign, time, when } from './words.js';
import { listen } from './live.js';
import { graph } from './graph.js';
import { gantt } from './gantt.js';
import { memory } from './memory.js';
import { curves } from './curves.js';
import { tasks } from './tasks.js';
import { detail } from './task.js';

/** Puts plan and record of a run together, so that every view has one thing to look at. */
function model(shown, plan) {
  const started = Date.parse(shown.started);
  const all = plan.tasks.map((planned, index) => ({ index, ...planned, state: 'waiting', attempts: [], heard: null }));
  const run = { id: shown.run, pipeline: shown.pipeline, state: shown.state, started, finished: null,
    tasks: all, makespan: plan.makespan_ms, counts: {}, left: null, stopping: false, waits: [], memory: { used: [], ours: [] }, gauges: null };
  run.end = () => (run.finished ? run.finished - started : run.state === 'running' ? Date.now() - started : lastKnown(run) - started);
  take(run, { run: shown, tasks: shown.tasks.map((task, index) => ({ index, task })) });
  return run;
}

function lastKnown(run) {
  let last = run.started;
  for (const task of run.tasks) for (const one of task.attempts) last = Math.max(last, Date.parse(one.finished || one.started));
  return last;
}

function take(run, change) {
  run.state = change.run.state;
  run.finished = change.run.finished ? Date.parse(change.run.finished) : null;
  for (const { index, task } of change.tasks) {
    const own = run.tasks[index];
    Object.assign(own, { state: task.state, attempts: task.attempts });
    if (own.state !== 'running') own.heard = null;
  }
  run.counts = {};
  for (const task of run.tasks) run.counts[task.state] = (run.counts[task.state] || 0) + 1;
}

export async function run(place, { what, about, query, go }) {
  const path = `/api/runs/${encodeURIComponent(what)}`;
  const [{ said: shown, response }, { said: plan }] = await Promise.all([ask(path), ask(`${path}/plan`)]);
  const it = model(shown, plan);
  const chosen = { task: null };

  const state = h('span');
  const facts = h('p', { class: 'lead' });
  const progress = h('div', { class: 'overall' });
  const cancel = h('button', { type: 'button', class: 'danger', on: { click: () => question.showModal() } }, 'End run…');
  const again = h('button', { type: 'button', hidden: true, on: { click: () => retrying.showModal() } }, 'Try again…');
  const said = h('p', { class: 'ails', role: 'alert', hidden: true });
  const question = dialog('question', 'End this run?',
    'Its tasks are asked to end and have their grace to do so. What is done stays done: it can be gone on with from there.',
    [['end', 'End it', 'danger', () => send('cancel')], ['kill', 'Kill its tasks at once', '', () => send('cancel?now=1')]], 'Let it run');
  const retrying = dialog('retrying', 'Go on with this run?',
    'What failed, was skipped or interrupted is tried again, as the pipeline file says. What succeeded is not done again.',
    [['retry', 'Try again', '', () => send('retry')]], 'Leave it');
  const chips = h('div', { class: 'chips', role: 'group', 'aria-label': 'Show tasks that are' });
  const waits = h('section', { class: 'sheet waits', 'aria-labelledby': 'waits', hidden: true },
    h('h2', { id: 'waits' }, 'Waiting'), h('ul'));

  const select = (index) => {
    chosen.task = index;
    views.task.show(index);
    views.graph.mark(index);
    views.tasks.mark(index);
    const address = new URL(location.href);
    address.searchParams.set('task', it.tasks[index].name);
    history.replaceState(null, '', address);
    // Where it does not stand beside, it would be told out of sight.
    if (!matchMedia('(min-width: 1180px)').matches) views.task.node.scrollIntoView();
  };
  const views = {
    graph: graph(it, select, (stage) => views.tasks.filter(stage)),
    gantt: gantt(it, select),
    memory: memory(it),
    curves: curves(it, path, select),
    tasks: tasks(it, select),
    task: detail(it, path, () => about.writes && it.state !== 'running' && retrying.showModal()),
  };
  put(place,
    h('div', { class: 'head' },
      h('div', {}, h('h1', {}, it.pipeline), facts),
      h('div', { class: 'tools' }, state, cancel, again)),
    said, progress, chips, waits,
    h('div', { class: 'split' },
      h('div', { class: 'column' }, views.graph.node, views.gantt.node, views.memory.node, views.curves.node, views.tasks.node),
      views.task.node),
    question, retrying);

  /** Has the server act, and says what it did not do. */
  async function send(action) {
    const words = action === 'retry' ? 'going on' : 'ending';
    it.asked = words;
    said.hidden = true;
    head();
    announce(`The run is ${words}`);
    try {
      await ask(`${path}/${action}`, { method: 'POST' });
    } catch (error) {
      it.asked = null;
      said.hidden = false;
      say(said, error.message);
    }
    if (action === 'retry') it.asked = null;
    head();
  }

  function dialog(id, title, words, actions, dismiss) {
    const node = h('dialog', { 'aria-labelledby': id, 'aria-describedby': `${id}-words` },
      h('h2', { id }, title), h('p', { id: `${id}-words` }, words),
      h('div', { class: 'tools' },
        actions.map(([name, word, kind, act]) => h('button', { type: 'button', class: kind, id: name, on: { click: () => { node.close(); act(); } } }, word)),
        h('button', { type: 'button', class: 'quiet', autofocus: true, on: { click: () => node.close() } }, dismiss)));
    return node;
  }

  function head() {
    const runs = it.state === 'running';
    put(state, badge(it.state, it.asked || (it.stopping && runs ? 'stopping' : it.state)));
    cancel.hidden = !about.writes || !runs;
    again.hidden = !about.writes || runs || it.state === 'succeeded';
    cancel.disabled = again.disabled = Boolean(it.asked);
    const parts = [it.id, `started ${when(shown.started)}`];
    const took = it.end();
    parts.push(it.state === 'running' ? `running for ${clock(took)}` : `took ${time(took)}`);
    if (it.state === 'running' && it.left !== null) parts.push(`about ${clock(it.left)} left`);
    if (it.makespan) parts.push(`planned ${time(it.makespan)}`);
    say(facts, parts.join(' · '));
  }

  function counts() {
    put(progress, bar(it.counts));
    const wanted = views.tasks.wanted();
    const focused = document.activeElement?.dataset?.state;
    put(chips, STATES.filter((word) => it.counts[word]).map((word) => {
      const chip = h('button', { type: 'button', class: 'chip', 'data-state': word, 'aria-pressed': String(wanted === word),
        on: { click: () => { views.tasks.only(views.tasks.wanted() === word ? null : word); counts(); } } },
      sign(word), `${it.counts[word].toLocaleString()} ${word}`);
      return chip;
    }));
    if (focused) chips.querySelector(`[data-state="${focused}"]`)?.focus();
  }

  function wait() {
    waits.hidden = !it.waits.length || it.state !== 'running';
    put(waits.querySelector('ul'), it.waits.map((one) => {
      const first = it.tasks[one.tasks[0]];
      return h('li', {}, h('strong', {}, first ? first.name : ''), one.count > 1 ? ` and ${one.count - 1} more: ` : ': ', one.words,
        h('span', { class: 'soft' }, ` for ${clock(Date.now() - Date.parse(one.since))}`));
    }));
  }

  const quick = soon(() => {
    head();
    counts();
    wait();
    views.tasks.draw();
    views.graph.draw();
  });
  const slow = soon(() => {
    views.gantt.draw();
    views.memory.draw();
  }, 400);

  const leave = listen(`${path}/events`, {
    change(change) {
      const before = new Map(change.tasks.map(({ index }) => [index, it.tasks[index].state]));
      const was = it.state;
      take(it, change);
      it.left = change.left_ms;
      it.stopping = change.stopping;
      const news = change.tasks.filter(({ index, task }) => before.get(index) !== task.state && ['failed', 'succeeded'].includes(task.state));
      if (was !== it.state) it.asked = null;
      if (was !== it.state) announce(`The run ${it.state === 'running' ? 'goes on' : `has ${it.state}`}`);
      else if (news.length === 1) announce(`${news[0].task.name} ${news[0].task.state}`);
      else if (news.length) announce(`${count(news.length, 'task')} ended`);
      quick();
      slow();
      views.task.changed(change.tasks.map(({ index }) => index));
    },
    heard({ left_ms: left, tasks: heard }) {
      it.left = left;
      for (const one of heard) if (it.tasks[one.index].state === 'running') it.tasks[one.index].heard = one;
      quick();
      views.task.heard(heard);
      views.curves.heard();
    },
    waits(said) {
      it.waits = said;
      quick();
      views.task.waits();
    },
    memory(said) {
      it.memory = said;
      slow();
    },
    gauges(said) {
      it.gauges = said.devices;
      for (const device of said.devices) {
        for (const [all, bytes] of [[it.memory.used, device.used_bytes], [it.memory.ours, device.ours_bytes]]) {
          if (bytes === null) continue;
          let series = all.find((one) => one.name === device.id);
          if (!series) all.push(series = { name: device.id, ms: [], value: [] });
          series.ms.push(said.ms);
          series.value.push(bytes);
        }
      }
      slow();
    },
  }, response.headers.get('last-event-id'));

  const tick = setInterval(() => {
    if (it.state !== 'running') return;
    head();
    wait();
    views.tasks.tick();
    slow();
  }, 1000);

  quick();
  slow();
  const named = query.get('task');
  const first = it.tasks.findIndex((task) => task.name === named);
  const usual = ['failed', 'running'].map((word) => it.tasks.findIndex((task) => task.state === word)).find((at) => at >= 0);
  const start = first >= 0 ? first : usual ?? (it.tasks.length - 1);
  if (start >= 0) {
    chosen.task = start;
    views.task.show(start);
    views.graph.mark(start);
    views.tasks.mark(start);
  }
  return () => {
    clearInterval(tick);
    leave();
    Object.values(views).forEach((view) => view.leave?.());
  };
}
