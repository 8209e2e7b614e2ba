// What a task prints, and goes on printing. Lines are text, whatever is in them.

import { ask, h, put, say } from './dom.js';
import { bytes } from './words.js';

/** Lines that are kept on the page. */
const KEPT = 5000;

export function log(path) {
  let now = { task: null, attempt: null };
  let next = null;
  let reading = false;
  let more = false;
  let left = false;
  const attempt = h('select', { 'aria-label': 'Attempt', on: { change: () => start(Number(attempt.value), true) } });
  const follow = h('input', { type: 'checkbox', checked: true, on: { change: () => follow.checked && down() } });
  const facts = h('span', { class: 'soft' });
  const earlier = h('button', { type: 'button', class: 'quiet', hidden: true, on: { click: () => begin() } }, 'From the beginning');
  const lines = h('div');
  const open = h('div', { class: 'open' });
  const text = h('div', { class: 'log', tabindex: '0', role: 'log', 'aria-live': 'off', 'aria-label': 'What the task printed',
    on: { scroll: () => { follow.checked = text.scrollTop + text.clientHeight >= text.scrollHeight - 30; } } }, lines, open);
  const node = h('section', { class: 'printed', 'aria-labelledby': 'printed' },
    h('div', { class: 'title' }, h('h3', { id: 'printed' }, 'Log'), attempt, facts, h('div', { class: 'tools' }, earlier, h('label', {}, follow, 'follow'))), text);

  const down = () => { text.scrollTop = text.scrollHeight; };

  async function read() {
    if (now.task === null || left) return;
    if (reading) {
      more = true;
      return;
    }
    reading = true;
    const own = now;
    try {
      const from = next === null ? '' : `&from=${next}`;
      const { said } = await ask(`${path}/tasks/${own.task}/log?attempt=${own.attempt}${from}`);
      if (own !== now) return;
      const wasNew = next === null;
      next = said.next;
      take(said, wasNew);
      if (said.lines.length && said.next < said.bytes && said.bytes - said.next > said.partial.length + 4) more = true;
    } catch (error) {
      if (own === now) say(facts, error.status === 404 ? 'nothing printed' : error.message);
    } finally {
      reading = false;
      if (more) {
        more = false;
        read();
      }
    }
  }

  function take(said, wasNew) {
    const part = document.createDocumentFragment();
    for (const line of said.lines) part.append(h('div', {}, line || '\u200b'));
    lines.append(part);
    while (lines.childElementCount > KEPT) lines.firstElementChild.remove();
    say(open, said.partial);
    if (wasNew) earlier.hidden = said.from === 0;
    say(facts, bytes(said.bytes));
    if (follow.checked) down();
  }

  function start(of, force) {
    if (!force && now.attempt === of) return;
    now = { task: now.task, attempt: of };
    next = null;
    put(lines);
    say(open, '');
    say(facts, '');
    earlier.hidden = true;
    follow.checked = true;
    read();
  }

  function begin() {
    now = { ...now };
    next = 0;
    put(lines);
    earlier.hidden = true;
    follow.checked = false;
    read();
  }

  return {
    node,
    /** Shows the last attempt of a task, and that of an earlier run where this one had none to do. */
    of(task, tried, state) {
      const other = task !== now.task;
      if (other) now = { task, attempt: null };
      if (other || attempt.childElementCount !== tried) {
        put(attempt, Array.from({ length: tried }, (_, i) => h('option', { value: i + 1 }, `attempt ${i + 1}`)),
          state === 'cached' && tried === 0 ? h('option', { value: 0 }, 'from an earlier run') : null);
        attempt.hidden = tried < 2 && state !== 'cached';
        attempt.value = String(tried);
        if (tried > 0 || state === 'cached') start(tried, other);
        else {
          put(lines);
          say(open, '');
          say(facts, 'not started yet');
        }
      } else if (now.attempt === tried) {
        read();
      }
    },
    grew(of, size) {
      if (of === now.attempt && (next === null || size !== next)) read();
    },
    leave: () => { left = true; },
  };
}
