import { useSyncExternalStore } from 'react';
import { ago, day, local, short, span, utc } from './time.ts';

let now = Date.now();
const watchers = new Set<() => void>();
let ticking: ReturnType<typeof setInterval> | undefined;

/** One clock for the page: everything that says `12 s ago` moves at the same moment. */
export function useNow(): number {
  return useSyncExternalStore(watch, () => now);
}

function watch(tick: () => void): () => void {
  watchers.add(tick);
  ticking ??= setInterval(() => {
    now = Date.now();
    for (const watcher of watchers) watcher();
  }, 1_000);
  return () => {
    watchers.delete(tick);
    if (watchers.size === 0) {
      clearInterval(ticking);
      ticking = undefined;
    }
  };
}

/** When something was: short, with the exact local time and UTC for whoever points at it. */
export function When({ ms }: { ms: number | null | undefined }) {
  const now = useNow();
  if (typeof ms !== 'number') return <span className="faint">–</span>;
  return (
    <time
      className="num"
      dateTime={new Date(ms).toISOString()}
      title={`${local(ms)} here, ${utc(ms)}`}
    >
      {short(ms, now)}
    </time>
  );
}

export function Day({ ms }: { ms: number }) {
  return (
    <time
      className="num nowrap"
      dateTime={new Date(ms).toISOString()}
      title={`${local(ms)} here, ${utc(ms)}`}
    >
      {day(ms)}
    </time>
  );
}

export function Ago({ ms, never = 'never' }: { ms: number | null | undefined; never?: string }) {
  const now = useNow();
  if (typeof ms !== 'number') return <span className="faint">{never}</span>;
  return (
    <time
      className="num"
      dateTime={new Date(ms).toISOString()}
      title={`${local(ms)} here, ${utc(ms)}`}
    >
      {ago(ms, now)}
    </time>
  );
}

/** How long until then: `in 4 min 12 s`. */
export function Until({ ms }: { ms: number }) {
  const now = useNow();
  return (
    <time
      className="num"
      dateTime={new Date(ms).toISOString()}
      title={`${local(ms)} here, ${utc(ms)}`}
    >
      {ms <= now ? 'any moment' : `in ${span(ms - now)}`}
    </time>
  );
}
