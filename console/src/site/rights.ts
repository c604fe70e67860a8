/** Who may do what: the table of `crates/api/src/scope.rs`, for saying which role may where the caller may not. */

import { type Me, type Scope, USER_ROLES, type UserRole } from './contract.ts';

const READS: Scope[] = [
  'telemetry.read',
  'fleet.read',
  'releases.read',
  'rollouts.read',
  'evidence.read',
  'metrics.read',
  'alerts.read',
];

const MORE: Record<UserRole, Scope[]> = {
  viewer: [],
  operator: ['fleet.enrol', 'fleet.narrow', 'rollouts.narrow', 'alerts.write', 'approvals.write'],
  releaser: ['releases.write', 'rollouts.write', 'rollouts.narrow', 'approvals.write'],
  security_officer: [
    'fleet.narrow',
    'fleet.widen',
    'rollouts.narrow',
    'alerts.write',
    'users.read',
    'users.narrow',
    'approvals.write',
  ],
  administrator: [
    'fleet.enrol',
    'fleet.narrow',
    'rollouts.narrow',
    'alerts.write',
    'users.read',
    'users.narrow',
    'users.write',
    'approvals.write',
    'settings.write',
  ],
};

export function holds(role: UserRole, scope: Scope): boolean {
  return READS.includes(scope) || MORE[role].includes(scope);
}

export function may(me: Me, scope: Scope): boolean {
  return me.scopes.includes(scope);
}

export function rolesThatMay(scope: Scope): UserRole[] {
  return USER_ROLES.filter(role => holds(role, scope));
}

export function roleName(role: UserRole): string {
  return role.replace('_', ' ');
}

/** `an operator, a security officer or an administrator`. */
export function whoMay(scope: Scope): string {
  const names = rolesThatMay(scope).map(
    role => `${/^[aeio]/.test(role) ? 'an' : 'a'} ${roleName(role)}`,
  );
  const last = names.pop() ?? 'nobody';
  return names.length > 0 ? `${names.join(', ')} or ${last}` : last;
}
