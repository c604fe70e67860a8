/**
 * What changes, as it changes: `GET /v1/stream` once for all tabs of a browser.
 *
 * HTTP/1.1 lets a browser hold six connections to a host, so a stream per tab would leave the seventh tab without an
 * answer. The tab that holds the lock `plimsoll-stream` has the stream and tells the others; when it closes, the lock
 * goes to the next one by itself.
 */

import { useSyncExternalStore } from 'react';

export type LiveState = 'connecting' | 'live' | 'reconnecting';

export const CHANGE_KINDS = [
  'device',
  'rollout',
  'release',
  'alert',
  'user',
  'approval',
  'site',
  'seen',
  'reset',
] as const;
export type ChangeKind = (typeof CHANGE_KINDS)[number];

export interface Change {
  kind: ChangeKind;
  /** As events name it: `device/pump-1`. `site`: many, or all of it. */
  subject: string;
}

type Told = { change: Change } | { state: LiveState } | 'how is it?';

let state: LiveState = 'connecting';
const watchers = new Set<() => void>();

export function useLive(): LiveState {
  return useSyncExternalStore(
    watcher => {
      watchers.add(watcher);
      return () => watchers.delete(watcher);
    },
    () => state,
  );
}

function become(next: LiveState) {
  if (state === next) return;
  state = next;
  for (const watcher of watchers) watcher();
}

/** Hears changes until the returned function is called. */
export function listen(onChange: (change: Change) => void): () => void {
  const others = new BroadcastChannel('plimsoll-stream');
  const end = new AbortController();
  let holds = false;

  const say = (told: Told) => {
    if (told !== 'how is it?' && 'change' in told) onChange(told.change);
    if (told !== 'how is it?' && 'state' in told) become(told.state);
    others.postMessage(told);
  };
  others.onmessage = ({ data }: MessageEvent<Told>) => {
    if (data === 'how is it?') {
      if (holds) others.postMessage({ state } satisfies Told);
    } else if ('change' in data) onChange(data.change);
    else become(data.state);
  };
  others.postMessage('how is it?' satisfies Told);

  navigator.locks
    .request('plimsoll-stream', { signal: end.signal }, async () => {
      holds = true;
      await hold(say, end.signal);
    })
    .catch(() => {
      // The signal ended the wait for the lock: this tab listens no more.
    });

  return () => {
    end.abort();
    others.close();
    become('connecting');
  };
}

/** From the first wait after a broken stream to the longest, each twice the one before. */
const WAIT_MS = { first: 1_000, max: 30_000 };

/** Keeps a stream open until the signal. */
async function hold(say: (told: Told) => void, end: AbortSignal): Promise<void> {
  let wait = WAIT_MS.first;
  let first = true;
  while (!end.aborted) {
    await new Promise<void>(broken => {
      const stream = new EventSource('/v1/stream');
      const close = () => {
        stream.close();
        broken();
      };
      end.addEventListener('abort', close, { once: true });
      stream.onopen = () => {
        wait = WAIT_MS.first;
        say({ state: 'live' });
        // Whoever takes over cannot know what was said meanwhile.
        if (!first) say({ change: { kind: 'reset', subject: '' } });
        first = false;
      };
      stream.onerror = () => {
        say({ state: 'reconnecting' });
        // A stream that only broke comes back by itself, with `Last-Event-ID`. One that was refused does not.
        if (stream.readyState === EventSource.CLOSED) {
          first = false;
          end.removeEventListener('abort', close);
          broken();
        }
      };
      for (const kind of CHANGE_KINDS) {
        stream.addEventListener(kind, event => {
          say({ change: { kind, subject: subjectOf(event.data) } });
        });
      }
    });
    if (end.aborted) return;
    // A fleet of browsers must not come back at one moment.
    await pause(wait * (0.5 + Math.random() / 2), end);
    wait = Math.min(wait * 2, WAIT_MS.max);
  }
}

function subjectOf(data: string): string {
  try {
    return String(JSON.parse(data).subject ?? '');
  } catch {
    return '';
  }
}

function pause(ms: number, end: AbortSignal): Promise<void> {
  return new Promise(done => {
    const timer = setTimeout(done, ms);
    end.addEventListener('abort', () => {
      clearTimeout(timer);
      done();
    });
  });
}
