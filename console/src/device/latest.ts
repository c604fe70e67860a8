/** What a device said last, per series. */

import { useQuery } from '@tanstack/react-query';
import { quoted } from '../chart/question.ts';
import { ending } from '../site/ask.ts';
import { ask } from '../site/call.ts';
import type { Answer, Cell } from '../site/contract.ts';

export interface Latest {
  series: string;
  unit: string | undefined;
  value: number | undefined;
  text: string | undefined;
  at_ms: number;
}

const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;
/** A device that was silent longer shows nothing here. */
const DAYS_MAX = 30;
const SERIES_MAX = 2_000;

/** Every series of the last day, or of the last month for a device that was silent, with its newest value. */
export function useLatest(device: string) {
  return useQuery({
    queryKey: ['/v1/query', 'latest', device],
    queryFn: async ({ signal }) => {
      const now = Date.now();
      const kept = await ending(ask<Answer>('/v1/query', keptOf(device, now - DAY_MS), signal));
      if (kept.rows.length === 0) {
        return latestOf(
          await ending(ask<Answer>('/v1/query', keptOf(device, now - DAYS_MAX * DAY_MS), signal)),
        );
      }
      const fresh = await ending(
        ask<Answer>('/v1/query', freshOf(device, now - 10 * MINUTE_MS), signal),
      );
      return merged(latestOf(kept), latestOf(fresh));
    },
    refetchInterval: 5_000,
  });
}

/** Minutes know numbers and no units; they reach far back at little cost. */
function keptOf(device: string, from: number) {
  return {
    sql:
      `select series, null as unit, last_value(last order by time) as value, null as text, ` +
      `cast(max(last_time) as bigint) as at from readings_1m ` +
      `where device = ${quoted(device)} and time >= to_timestamp_millis(${from}) group by series order by series`,
    rows_max: SERIES_MAX,
  };
}

function freshOf(device: string, from: number) {
  return {
    sql:
      `select series, max(unit) as unit, last_value(value order by time) as value, ` +
      `last_value(value_text order by time) as text, cast(max(time) as bigint) as at from readings ` +
      `where device = ${quoted(device)} and time >= to_timestamp_millis(${from}) group by series order by series`,
    rows_max: SERIES_MAX,
  };
}

export function latestOf(answer: Answer): Latest[] {
  const text = (cell: Cell | undefined) => (typeof cell === 'string' ? cell : undefined);
  return answer.rows.map(([series, unit, value, word, at]) => ({
    series: String(series),
    unit: text(unit),
    value: typeof value === 'number' ? value : undefined,
    text: text(word),
    at_ms: Number(at) / 1_000,
  }));
}

export function merged(kept: Latest[], fresh: Latest[]): Latest[] {
  const all = new Map(kept.map(one => [one.series, one]));
  for (const one of fresh) all.set(one.series, one);
  return [...all.values()].sort((a, b) => a.series.localeCompare(b.series));
}

/** What to show first: what the product measures, before what its machine does. */
export function firstSeries(latest: Latest[], n = 3): string[] {
  const numbers = latest.filter(one => one.value !== undefined).map(one => one.series);
  const ofProduct = numbers.filter(
    name => name.startsWith('app/') && !['app/cpu', 'app/rss'].includes(name),
  );
  const usual = numbers.filter(name => ['cpu/busy', 'mem/used', 'app/rss'].includes(name));
  return [...new Set([...ofProduct, ...usual, ...numbers])].slice(0, n);
}
