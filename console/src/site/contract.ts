/**
 * The HTTP contract as the console reads it: `crates/api` in TypeScript. The words are held to the Rust sources by
 * `tests/unit/contract.test.ts`. Times end in `_ms` and count from 1970.
 */

export type Role = 'device' | 'gateway';
export type Standing = 'listed' | 'enrolled' | 'quarantined' | 'revoked' | 'decommissioned';

export const SCOPES = [
  'telemetry.read',
  'fleet.read',
  'fleet.enrol',
  'fleet.narrow',
  'fleet.widen',
  'releases.read',
  'releases.write',
  'rollouts.read',
  'rollouts.write',
  'rollouts.narrow',
  'evidence.read',
  'metrics.read',
  'alerts.read',
  'alerts.write',
  'users.read',
  'users.narrow',
  'users.write',
  'approvals.write',
  'settings.write',
] as const;
export type Scope = (typeof SCOPES)[number];

export const USER_ROLES = [
  'viewer',
  'operator',
  'releaser',
  'security_officer',
  'administrator',
] as const;
export type UserRole = (typeof USER_ROLES)[number];

export interface Problem {
  type: string;
  title: string;
  status: number;
  detail: string;
}

export interface Grant {
  role: UserRole;
  site?: string;
}

export interface Me {
  actor: string;
  user?: string;
  site: string;
  grants: Grant[];
  scopes: Scope[];
  until_ms?: number;
}

export interface DeviceLine {
  id: string;
  role: Role;
  site: string;
  zone: string;
  group: string;
  standing: Standing;
  product?: string;
  version?: string;
  gateway?: string;
  seen_at_ms?: number;
}

export interface Inventory {
  devices: DeviceLine[];
  total: number;
  next?: string;
}

export type Tally = Record<string, number>;

export interface Summary {
  total: number;
  sites: Tally;
  zones: Tally;
  groups: Tally;
  standings: Tally;
  roles: Tally;
  versions: Tally;
  gateways: Tally;
  seen: Tally;
}

export interface FleetKey {
  id: string;
  purpose: 'tls' | 'seal';
  created_at_ms: number;
  not_after_ms: number;
  retired_at_ms: number | null;
}

export interface FleetDevice {
  id: string;
  serial: string;
  role: Role;
  zone: string;
  standing: Standing;
  listed_at_ms: number;
  enrolled_at_ms: number | null;
  changed_at_ms: number;
  keys: FleetKey[];
}

export interface Component {
  product: string;
  hardware: string;
  version: string;
  sha256: string;
  boot: string;
  security_version: number;
  floor: number;
}

export interface Outcome {
  rollout?: string;
  product: string;
  sha256: string;
  end: string;
  reason: string;
}

export interface Software {
  device: string;
  number: number;
  received_at_ms: number;
  components: Component[];
  outcome?: Outcome;
}

export interface Device {
  line: DeviceLine;
  identity: FleetDevice;
  software?: Software;
  concerns: string[];
}

export interface Moment {
  at_ms: number;
  kind: string;
  sentence: string;
  actor?: string;
  event?: number;
  detail?: Record<string, unknown>;
}

export interface History {
  device: string;
  moments: Moment[];
  /** What could not be asked, each in a sentence. */
  missing?: string[];
  next?: string;
}

export interface Release {
  product: string;
  version: string;
  security_version: number;
  hardware: string[];
  must_pass: string[];
  path: string;
  sha256: string;
  length: number;
}

export interface Releases {
  releases: Release[];
  root: number;
  timestamp: number;
  snapshot: number;
  targets: number;
  until_ms: number;
  failed?: string;
}

export interface NewWave {
  percent: number;
  count_max?: number;
  soak_ms?: number;
}

export interface NewSignal {
  name: string;
  sql: string;
  at_most?: number;
  at_least?: number;
}

export interface NewRollout {
  id?: string;
  product: string;
  version: string;
  cohort?: { zones?: string[]; devices?: string[]; groups?: string[] };
  waves: NewWave[];
  bound?: number;
  prove_within_ms?: number;
  come_within_ms?: number;
  success_min_percent?: number;
  quorum_percent?: number;
  signals?: NewSignal[];
  ask_again_ms?: number;
  back?: { by_itself?: boolean; percents?: number[]; at_a_time?: number };
  raise?: boolean;
  start?: boolean;
}

export type RolloutCommand = 'start' | 'pause' | 'resume' | 'halt' | 'revert' | 'abort';

export interface RolloutCounts {
  issued: number;
  silent: number;
  proven: number;
  had: number;
  failed: number;
  back: number;
  back_silent: number;
  stuck: number;
  went_back: number;
}

export interface Rollout {
  id: string;
  order: NewRollout;
  sha256: string;
  created_at_ms: number;
  revision: number;
  phase: string;
  stage?: string;
  why?: string;
  wave: number;
  waves: number;
  cohort: number;
  members: number;
  counts: RolloutCounts;
  next?: string;
  next_at_ms?: number;
  commands?: RolloutCommand[];
}

export interface Rollouts {
  rollouts: Rollout[];
  next?: string;
}

export interface RolloutDevice {
  device: string;
  known: string;
  was_sha256: string;
  due_ms?: number;
}

export interface RolloutDevices {
  devices: RolloutDevice[];
  next?: string;
}

export interface AskedSignal {
  at_ms: number;
  wave: number;
  name: string;
  value?: number;
  within: boolean;
}

/** Means of a minute, or of as many as make a line of at most 720 points. */
export type ComparedPoint = [minute_ms: number, having: number | null, others: number | null];

export interface ComparedSeries {
  series: string;
  unit?: string;
  points: ComparedPoint[];
}

export interface RolloutSignals {
  asked: AskedSignal[];
  compared: ComparedSeries[];
  /** What could not be asked, each in a sentence. */
  missing?: string[];
}

export const PRIORITIES = ['critical', 'warning', 'notice'] as const;
export type Priority = (typeof PRIORITIES)[number];

export interface Alert {
  id: number;
  rule: string;
  subject: string;
  sentence: string;
  priority: Priority;
  state: 'firing' | 'acknowledged' | 'resolved';
  value?: number;
  since_ms: number;
  acknowledged_by?: string;
  acknowledged_at_ms?: number;
  note?: string;
  resolved_at_ms?: number;
  escalates_at_ms?: number;
  silenced_until_ms?: number;
  runbook?: string;
  count: number;
}

export interface Alerts {
  alerts: Alert[];
  firing: number;
  next?: number;
}

export interface NewSilence {
  rule?: string;
  subject?: string;
  until_ms: number;
  reason: string;
}

export interface Silence extends NewSilence {
  id: number;
  by: string;
  at_ms: number;
  /** Somebody ended it before its time. */
  ended_at_ms?: number;
}

export interface Silences {
  silences: Silence[];
}

export type Signal =
  | { sql: string }
  | { metric: { name: string; labels?: Record<string, string> } }
  | { silence: { role: Role } };

export type Condition = { above: number } | { below: number } | 'absent';

export interface Rule {
  id: string;
  sentence: string;
  priority: Priority;
  signal: Signal;
  when: Condition;
  for_ms?: number;
  every_ms: number;
  escalate_after_ms?: number;
  runbook?: string;
  group_by_gateway?: boolean;
  latched?: boolean;
  owner?: UserRole;
  enabled: boolean;
}

export interface RuleState {
  shipped: boolean;
  changed: boolean;
  looked_at_ms?: number;
  /** It cannot be evaluated: why. */
  trouble?: string;
  pending: number;
  open: number;
}

export interface Rules {
  rules: Rule[];
  states: Record<string, RuleState>;
}

export const MAIL_SECURITIES = ['tls', 'starttls', 'plain'] as const;
export type MailSecurity = (typeof MAIL_SECURITIES)[number];

export interface Webhook {
  url: string;
  /** Only ever sent: no answer has it. */
  secret?: string;
  ca_pem?: string;
}

export interface Mail {
  host: string;
  port: number;
  security: MailSecurity;
  user?: string;
  /** Only ever sent: no answer has it. */
  password?: string;
  from: string;
  to: string[];
  ca_pem?: string;
}

export interface Target {
  id: string;
  way: { webhook: Webhook } | { mail: Mail };
  from_priority: Priority;
  reports: boolean;
}

export interface TargetState extends Target {
  has_secret: boolean;
  waiting: number;
  delivered_at_ms?: number;
  /** Why the last attempt failed. */
  trouble?: string;
}

export interface Targets {
  targets: TargetState[];
}

export interface ReportedRollout {
  id: string;
  phase: string;
  proven: number;
  failed: number;
  went_back: number;
  cohort: number;
}

export interface WeeklyReport {
  site: string;
  from_ms: number;
  until_ms: number;
  made_at_ms: number;
  devices: number;
  enrolled: number;
  quarantined: number;
  revoked: number;
  heard: number;
  silent: string[];
  versions: Tally;
  rollouts: ReportedRollout[];
  alerts_by_priority: Tally;
  acknowledged_after_ms?: number;
  readings: number;
  gaps: number;
  quarantined_messages: number;
  acts: Tally;
  violations: Tally;
  /** Numbers that could not be had, and why, each in a sentence. */
  notes?: string[];
}

export const WIDENINGS = ['emergency_rollout', 'quarantine_release', 'grant_roles'] as const;
export type Widening = (typeof WIDENINGS)[number];

export interface Approval {
  id: string;
  what: Widening;
  subject: string;
  sentence: string;
  asked_by: string;
  asked_as: UserRole;
  seconds: UserRole[];
  /** None: at every site. */
  sites?: string[];
  asked_at_ms: number;
  until_ms: number;
  state: 'open' | 'approved' | 'refused' | 'failed' | 'expired';
  decided_by?: string;
  decided_at_ms?: number;
  reason?: string;
  /** Only of one that is open, and asked for by its id. */
  act?: unknown;
}

export interface Approvals {
  approvals: Approval[];
  next?: string;
}

export interface TwoPeople {
  needed_for: Widening[];
}

export interface Event {
  sequence: number;
  at_ms: number;
  actor: string;
  action: string;
  subject: string;
  detail: unknown;
}

export interface Events {
  events: Event[];
  covered: number;
  next?: number;
}

export interface User {
  name: string;
  grants: Grant[];
  disabled: boolean;
  created_at_ms: number;
  signed_in_at_ms?: number;
  sessions: number;
}

export interface Users {
  users: User[];
}

export interface Token {
  id: string;
  user: string;
  name: string;
  scopes: Scope[];
  sites?: string[];
  groups?: string[];
  created_at_ms: number;
  until_ms: number;
  used_at_ms?: number;
  revoked_at_ms?: number;
}

export interface Tokens {
  tokens: Token[];
}

export interface NewToken {
  name: string;
  scopes: Scope[];
  sites?: string[];
  groups?: string[];
  days: number;
}

export interface MadeToken {
  token: Token;
  secret: string;
}

export interface Site {
  id: string;
  zones: string[];
}

export interface Sites {
  sites: Site[];
}

export const PASSWORD_CHARS_MIN = 12;
export const PASSWORD_BYTES_MAX = 256;
export const TOKEN_DAYS_MAX = 366;

export type Cell = null | boolean | number | string;

export interface Answer {
  columns: { name: string; type: string }[];
  rows: Cell[][];
  truncated: boolean;
  took_ms: number;
}
