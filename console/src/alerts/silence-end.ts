/** When a silence ends. Pure. */

import { local } from '../words/time.ts';

const HOUR_MS = 3_600_000;
/** No silence is longer: whoever needs it for longer switches the rule off, which is seen. */
export const SILENCE_MAX_MS = 720 * HOUR_MS;

/** So many hours from now, or at that local time where no hours are given. */
export function endOf(hours: string, until: string, now: number): number {
  return hours === '' ? new Date(until).getTime() : now + Number(hours) * HOUR_MS;
}

/** As a field for date and time has it: `2026-11-21T22:18`. */
export function localMinute(ms: number): string {
  return local(ms).slice(0, 16).replace(' ', 'T');
}
