// What the server tells by itself. A page that is out of sight lets go of its connection, since browsers allow few of
// them to one host, and says when it comes back what it heard last.

import { ask, say } from './dom.js';

/** Listens at a path until the returned function is called. `heard` has a function for each kind of event. */
export function listen(path, heard, after) {
  const link = document.getElementById('link');
  let source = null;
  let last = after;
  let over = false;
  let again = 0;

  function show(state, words) {
    link.className = `link ${state}`;
    say(link, words);
  }

  function open() {
    if (over || source || document.hidden) return;
    source = new EventSource(last === undefined ? path : `${path}?after=${last}`);
    source.onopen = () => show('live', 'live');
    source.onerror = () => {
      show('lost', 'connecting…');
      if (source && source.readyState === EventSource.CLOSED) {
        close();
        again = setTimeout(retry, 1000);
      }
    };
    for (const [kind, take] of Object.entries(heard)) {
      source.addEventListener(kind, (event) => {
        if (event.lastEventId) last = event.lastEventId;
        take(JSON.parse(event.data));
      });
    }
  }

  async function retry() {
    try {
      await ask('/api/about');
    } catch (error) {
      if (error.status === 401) {
        show('lost', 'the token is no longer valid: open the address that trainyard serve printed');
        return;
      }
    }
    open();
  }

  function close() {
    if (source) source.close();
    source = null;
  }

  function seen() {
    if (document.hidden) {
      close();
      show('', 'paused');
    } else {
      open();
    }
  }

  document.addEventListener('visibilitychange', seen);
  open();
  return () => {
    over = true;
    clearTimeout(again);
    close();
    document.removeEventListener('visibilitychange', seen);
    show('', '');
  };
}
