/** Which answers a change makes old. Pure, so that a test can hold it. */

import type { Change, ChangeKind } from './live.ts';

/** A query's key: its path, and whatever else tells it from others. */
export type Key = readonly unknown[];

const PATHS: Record<Exclude<ChangeKind, 'reset'>, string[]> = {
  device: ['/v1/devices', '/v1/inventory', '/v1/events'],
  rollout: ['/v1/rollouts', '/v1/events'],
  release: ['/v1/releases', '/v1/events'],
  alert: ['/v1/alerts', '/v1/alert-rules', '/v1/alert-targets', '/v1/silences', '/v1/events'],
  user: ['/v1/users', '/v1/tokens', '/v1/session', '/v1/events'],
  approval: ['/v1/approvals', '/v1/events'],
  site: ['/v1/sites', '/v1/settings', '/v1/session', '/v1/inventory', '/v1/reports', '/v1/events'],
  seen: ['/v1/devices', '/v1/inventory'],
};

export function isStale(key: Key, change: Change): boolean {
  if (change.kind === 'reset') return true;
  const path = String(key[0] ?? '');
  if (!PATHS[change.kind].some(begin => path.startsWith(begin))) return false;
  return !isAboutAnother(path, change.subject);
}

/** Of two devices, or two rollouts, only the one that changed is asked for again. */
function isAboutAnother(path: string, subject: string): boolean {
  const one = /^\/v1\/(device|rollout)s\/([^/?]+)/.exec(path);
  if (!one || !subject) return false;
  const [, kind, id] = one;
  const [subjectKind, ...rest] = subject.split('/');
  return subjectKind === kind && rest.join('/') !== decodeURIComponent(id ?? '');
}
