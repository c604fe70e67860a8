/** A rollout as it is being written down: texts of a form, and the order that they make. Pure. */

import type { NewRollout, Tally } from '../site/contract.ts';

export interface WaveForm {
  percent: string;
  countMax: string;
  soakMinutes: string;
}

export interface SignalForm {
  name: string;
  sql: string;
  bound: 'at_most' | 'at_least';
  limit: string;
}

export interface OrderForm {
  id: string;
  product: string;
  version: string;
  zones: string;
  groups: string[];
  waves: WaveForm[];
  signals: SignalForm[];
  successMinPercent: string;
  backByItself: boolean;
  raise: boolean;
  start: boolean;
}

const MINUTE_MS = 60_000;

/** The way of a release: whoever builds it, then a few, then all. */
const USUAL_GROUPS = ['development', 'pilot', 'production'];

/** Groups to choose from: the usual ones in their order, then this site's own, the largest first. */
export function groupsOf(sizes: Tally, chosen: string[]): string[] {
  const own = Object.keys(sizes).sort(
    (a, b) => (sizes[b] ?? 0) - (sizes[a] ?? 0) || a.localeCompare(b),
  );
  return [...new Set([...USUAL_GROUPS, ...chosen, ...own])];
}

/** One device first, then a tenth, a half, all; ten minutes between. */
export function usualOrder(product: string, version: string): OrderForm {
  return {
    id: '',
    product,
    version,
    zones: '',
    groups: [],
    waves: [
      { percent: '5', countMax: '1', soakMinutes: '10' },
      { percent: '10', countMax: '', soakMinutes: '10' },
      { percent: '50', countMax: '', soakMinutes: '10' },
      { percent: '100', countMax: '', soakMinutes: '' },
    ],
    signals: [],
    successMinPercent: '95',
    backByItself: true,
    raise: false,
    start: true,
  };
}

export function orderOf(form: OrderForm): NewRollout {
  const zones = form.zones
    .split(',')
    .map(zone => zone.trim())
    .filter(Boolean);
  return {
    ...(form.id.trim() ? { id: form.id.trim() } : {}),
    product: form.product,
    version: form.version,
    cohort: {
      ...(zones.length > 0 ? { zones } : {}),
      ...(form.groups.length > 0 ? { groups: form.groups } : {}),
    },
    waves: form.waves.map(wave => ({
      percent: Number(wave.percent),
      ...(wave.countMax ? { count_max: Number(wave.countMax) } : {}),
      soak_ms: Math.round(Number(wave.soakMinutes || 0) * MINUTE_MS),
    })),
    signals: form.signals.map(signal => ({
      name: signal.name.trim(),
      sql: signal.sql.trim(),
      [signal.bound]: Number(signal.limit),
    })),
    success_min_percent: Number(form.successMinPercent),
    back: { by_itself: form.backByItself },
    raise: form.raise,
    start: form.start,
  };
}

/** What is wrong with it, in sentences, as far as can be known here. Control knows the rest. */
export function faultsOf(form: OrderForm): string[] {
  const faults: string[] = [];
  const percents = form.waves.map(wave => Number(wave.percent));
  if (!form.product || !form.version) faults.push('Choose a release.');
  if (percents.some(percent => !(percent > 0 && percent <= 100))) {
    faults.push('Each wave is above 0 and at most 100 percent.');
  }
  if (percents.some((percent, i) => percent <= (percents[i - 1] ?? 0) && percent > 0)) {
    faults.push('Each wave holds those before it, so it is larger than they are.');
  }
  if (
    form.signals.some(
      signal => !signal.name.trim() || !signal.sql.trim() || signal.limit.trim() === '',
    )
  ) {
    faults.push('Each signal has a name, a question and a limit.');
  }
  return faults;
}

/** More than half at once, and more than one: control can be set to ask a second person for it (`emergency_rollout`). */
export function lacksCanary(form: OrderForm): boolean {
  const first = form.waves[0];
  return first !== undefined && isBroad(Number(first.percent), Number(first.countMax || Infinity));
}

export function beginsBroadly({ waves }: NewRollout): boolean {
  const first = waves[0];
  return first !== undefined && isBroad(first.percent, first.count_max ?? Infinity);
}

function isBroad(percent: number, countMax: number): boolean {
  return percent > 50 && countMax > 1;
}
