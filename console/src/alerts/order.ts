import { type Alert, PRIORITIES } from '../site/contract.ts';

const STATE_ORDER = ['firing', 'acknowledged', 'resolved'];

/** Firing before acknowledged before resolved; within each by priority, the newest first. */
export function worstFirst(alerts: Alert[]): Alert[] {
  return alerts.toSorted(
    (a, b) =>
      STATE_ORDER.indexOf(a.state) - STATE_ORDER.indexOf(b.state) ||
      (a.state === 'resolved'
        ? 0
        : PRIORITIES.indexOf(a.priority) - PRIORITIES.indexOf(b.priority)) ||
      b.since_ms - a.since_ms,
  );
}
