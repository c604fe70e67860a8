import type { IconName } from '../parts/icon.tsx';
import type { Scope } from '../site/contract.ts';

export interface Listed {
  page: string;
  title: string;
  icon: IconName;
  /** The key behind `g`. */
  key: string;
  scope?: Scope;
}

/** The pages, in the order of a shift: what is there, what is changing, what is wrong, what was done. */
export const PAGES: Listed[] = [
  { page: 'fleet', title: 'Fleet', icon: 'fleet', key: 'f', scope: 'fleet.read' },
  { page: 'rollouts', title: 'Rollouts', icon: 'rollout', key: 'r', scope: 'rollouts.read' },
  { page: 'releases', title: 'Releases', icon: 'release', key: 'l', scope: 'releases.read' },
  { page: 'alerts', title: 'Alerts', icon: 'alert', key: 'a', scope: 'alerts.read' },
  { page: 'approvals', title: 'Approvals', icon: 'approval', key: 'p' },
  { page: 'evidence', title: 'Evidence', icon: 'evidence', key: 'e', scope: 'evidence.read' },
  { page: 'report', title: 'Weekly report', icon: 'report', key: 'w' },
  { page: 'users', title: 'Users', icon: 'users', key: 'u' },
];
