/**
 * A make-believe site for looking at the console: 100,000 devices, every state of every page, and each failure on
 * demand. It proves nothing: the tests that say that the product works run against the product.
 *
 *     npm run build && node dev/site.mjs [port]
 *
 * What a page shows is chosen by `/state/NAME`: full, empty, failing, slow, signed-out, viewer.
 */

import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { extname, join } from 'node:path';

const PORT = Number(process.argv[2] ?? 18990);
const DIST = new URL('../dist/site/', import.meta.url).pathname;
const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const START = Date.now();
let state = 'full';

/** The same numbers at every run. */
function drawn(seed) {
  let x = seed >>> 0 || 1;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) / 2 ** 32;
  };
}

const FLEET = fleet(100_000);

function fleet(n) {
  const random = drawn(7);
  const one = (...of) => of[Math.floor(random() * of.length)];
  const kinds = ['pump', 'valve', 'meter', 'mixer', 'drive'];
  const devices = [];
  for (let i = 0; i < n; i += 1) {
    const roll = random();
    const standing =
      roll < 0.96 ? 'enrolled' : roll < 0.98 ? 'listed' : roll < 0.995 ? 'quarantined' : 'revoked';
    const zone = one('hall', 'yard', 'boiler-house', 'line-1', 'line-2', 'line-3', 'cold-store');
    devices.push({
      id: `${one(...kinds)}-${String(i + 1).padStart(6, '0')}`,
      role: i % 400 === 0 ? 'gateway' : 'device',
      site: one('rotterdam', 'hamburg', 'antwerp'),
      zone,
      group: one('production', 'production', 'production', 'pilot', 'development'),
      standing,
      ...(standing === 'listed'
        ? {}
        : {
            product: 'pump-app',
            version: random() < 0.7 ? '1.0.0' : random() < 0.9 ? '1.1.0' : '1.2.0',
            gateway: `gw-${zone}-${Math.floor(random() * 3) + 1}`,
            seen_at_ms: START - Math.floor(random() ** 6 * 9 * DAY),
          }),
    });
  }
  return devices.sort((a, b) => (a.id < b.id ? -1 : 1));
}

function chosen(query) {
  if (state === 'empty') return [];
  const is = name => query.get(name);
  const search = is('search')?.toLowerCase();
  return FLEET.filter(
    one =>
      (!search || one.id.includes(search)) &&
      ['site', 'zone', 'group', 'standing', 'role', 'gateway'].every(
        name => !is(name) || one[name] === is(name),
      ) &&
      (!is('version') || `${one.product} ${one.version}` === is('version')) &&
      (!is('silent_s') || (one.seen_at_ms ?? 0) < Date.now() - Number(is('silent_s')) * 1_000),
  );
}

function inventory(query) {
  const all = chosen(query);
  const after = query.get('after') ?? '';
  const limit = Math.min(1_000, Number(query.get('limit') ?? 1_000));
  let first = all.findIndex(one => one.id > after);
  if (first < 0) first = all.length;
  const devices = all.slice(first, first + limit);
  const next = first + limit < all.length ? devices.at(-1).id : undefined;
  return { devices, total: all.length, next };
}

function summary(query) {
  const all = chosen(query);
  const tally = of => {
    const counts = {};
    for (const one of all) {
      const value = of(one);
      if (value) counts[value] = (counts[value] ?? 0) + 1;
    }
    return counts;
  };
  return {
    total: all.length,
    sites: tally(one => one.site),
    zones: tally(one => one.zone),
    groups: tally(one => one.group),
    standings: tally(one => one.standing),
    roles: tally(one => one.role),
    versions: tally(one => one.product && `${one.product} ${one.version}`),
    gateways: tally(one => one.gateway),
    seen: {},
  };
}

const hex = seed => {
  const random = drawn(seed);
  return Array.from({ length: 64 }, () => Math.floor(random() * 16).toString(16)).join('');
};

function device(id) {
  const line = FLEET.find(one => one.id === id) ?? { ...FLEET[0], id };
  const at = START - 40 * DAY;
  const key = (n, purpose, retired_at_ms) => ({
    id: hex(n),
    purpose,
    created_at_ms: at + n * DAY,
    not_after_ms: at + n * DAY + 90 * DAY,
    retired_at_ms,
  });
  return {
    line,
    identity: {
      id,
      serial: id.toUpperCase(),
      role: line.role,
      zone: line.zone,
      standing: line.standing,
      listed_at_ms: at - DAY,
      enrolled_at_ms: at,
      changed_at_ms: at,
      keys: [key(1, 'tls', START - 2 * DAY), key(2, 'seal', null), key(30, 'tls', null)],
    },
    software: {
      device: id,
      number: 412,
      received_at_ms: Date.now() - 8_000,
      components: [
        {
          product: 'pump-app',
          hardware: 'plimsoll-linux-amd64',
          version: line.version ?? '1.0.0',
          sha256: hex(5),
          boot: 'confirmed',
          security_version: 2,
          floor: 1,
        },
        {
          product: 'agent',
          hardware: 'plimsoll-linux-amd64',
          version: '0.1.0',
          sha256: hex(6),
          boot: 'trial',
          security_version: 1,
          floor: 1,
        },
      ],
      outcome: {
        rollout: 'pump-app-1.1.0-1',
        product: 'pump-app',
        sha256: hex(5),
        end: 'confirmed',
        reason: '',
      },
    },
    concerns: ['It has not been heard by its first gateway for 3 hours; gw-hall-2 speaks for it.'],
  };
}

function history(query) {
  const from = Number(query.get('from_ms') ?? 0);
  const kind = query.get('kind');
  const moments = [
    {
      at_ms: START - 20 * DAY,
      kind: 'act',
      sentence: 'It was put on the ownership list',
      actor: 'user/anna',
      event: 11,
    },
    {
      at_ms: START - 19 * DAY,
      kind: 'key',
      sentence: 'It enrolled with a TLS key',
      event: 14,
      detail: { key: hex(1) },
    },
    { at_ms: START - 6 * HOUR, kind: 'gateway', sentence: 'It roamed from gw-hall-1 to gw-hall-2' },
    {
      at_ms: START - 4 * 60_000,
      kind: 'gap',
      sentence: '12 messages are missing that nobody has explained',
    },
    {
      at_ms: START - 3 * 60_000,
      kind: 'firmware',
      sentence: 'pump-app 1.1.0 was confirmed, in the place of 1.0.0',
      event: 88,
      detail: { product: 'pump-app', version: '1.1.0' },
    },
    {
      at_ms: START - 60_000,
      kind: 'rollout',
      sentence: 'It proved its part of pump-app-1.1.0-1',
      event: 91,
    },
    {
      at_ms: START - 50_000,
      kind: 'refusal',
      sentence: 'A message was not believed: its counter was used before',
      detail: { count: 1 },
    },
  ];
  return {
    device: 'x',
    moments:
      state === 'empty'
        ? []
        : moments.filter(one => one.at_ms >= from && (!kind || one.kind === kind)),
  };
}

const SERIES = [
  ['app/cpu', '/'],
  ['app/flow', 'm3/s'],
  ['app/pressure', 'Pa'],
  ['app/rss', 'B'],
  ['app/temp', 'Cel'],
  ['cpu/busy', '/'],
  ['disk/vda/read', 'B/s'],
  ['fs/root/used', 'B'],
  ['host/processes', 'count'],
  ['load/1', '/'],
  ['mem/used', '/'],
  ['net/eth0/rx', 'B/s'],
];

function measuredAt(series, ms) {
  const place = SERIES.findIndex(([name]) => name === series);
  const slow = Math.sin(ms / 90_000 + place) + 0.3 * Math.sin(ms / 7_000 + place * 3);
  const noise = (Math.abs(Math.sin(ms * 12.9898 + place)) * 43758.5453) % 1;
  const unit = SERIES[place]?.[1];
  const scale =
    unit === 'B' ? 4e7 : unit === 'Pa' ? 2.5e5 : unit === 'B/s' ? 1e5 : unit === 'm3/s' ? 0.01 : 40;
  return scale * (1 + 0.2 * slow + 0.05 * noise);
}

function answer(sql) {
  const columns = n => Array.from({ length: n }, (_, i) => ({ name: `c${i}`, type: 'Utf8' }));
  const from = Number(/time >= to_timestamp_millis\((\d+)\)/.exec(sql)?.[1] ?? 0);
  const to = Math.min(
    Date.now(),
    Number(/time <= to_timestamp_millis\((\d+)\)/.exec(sql)?.[1] ?? Date.now()),
  );
  if (state === 'empty') return { columns: columns(5), rows: [], truncated: false, took_ms: 1 };
  if (sql.includes('last_value')) {
    const rows = SERIES.map(([name, unit]) => [
      name,
      unit,
      measuredAt(name, Date.now()),
      null,
      (Date.now() - 700) * 1_000,
    ]);
    if (sql.includes('value_text'))
      rows.push(['app/release', null, null, '1.1.0', (Date.now() - 60_000) * 1_000]);
    return { columns: columns(5), rows, truncated: false, took_ms: 4 };
  }
  const step = Number(/bigint\) \/ (\d+)/.exec(sql)?.[1] ?? 1_000_000) / 1_000;
  const names = /series in \(([^)]*)\)/
    .exec(sql)[1]
    .split(', ')
    .map(name => name.slice(1, -1));
  const rows = [];
  for (const name of names) {
    for (let at = Math.ceil(from / step) * step; at <= to; at += step) {
      // It was cut off for a while.
      if (at > START - 150_000 && at < START - 120_000) continue;
      const v = measuredAt(name, at);
      rows.push([name, at * 1_000, v, step > 1_000 ? v * 0.97 : v, step > 1_000 ? v * 1.03 : v]);
    }
  }
  return { columns: columns(5), rows, truncated: false, took_ms: 6 };
}

const ORDER = {
  id: 'pump-app-1.1.0-1',
  product: 'pump-app',
  version: '1.1.0',
  cohort: { zones: ['hall'] },
  waves: [
    { percent: 10, count_max: 1, soak_ms: 600_000 },
    { percent: 10, soak_ms: 600_000 },
    { percent: 50, soak_ms: 1_800_000 },
    { percent: 100 },
  ],
  success_min_percent: 95,
  quorum_percent: 90,
  signals: [
    {
      name: 'memory',
      sql: "select max(value) from readings where series = 'app/rss' and time >= to_timestamp_millis($opened_ms)",
      at_most: 50_000_000,
    },
  ],
  back: { by_itself: true, percents: [100] },
  prove_within_ms: DAY,
  come_within_ms: 7 * DAY,
};

const NONE = {
  issued: 0,
  silent: 0,
  proven: 0,
  had: 0,
  failed: 0,
  back: 0,
  back_silent: 0,
  stuck: 0,
  went_back: 0,
};

function rollouts() {
  if (state === 'empty') return [];
  const one = (id, version, phase, more) => ({
    id,
    order: { ...ORDER, id, version },
    sha256: hex(5),
    created_at_ms: START - 2 * HOUR,
    revision: 9,
    phase,
    wave: 1,
    waves: 4,
    cohort: 1200,
    members: 120,
    counts: NONE,
    commands: [],
    ...more,
  });
  return [
    one('pump-app-1.1.0-1', '1.1.0', 'running', {
      stage: 'soaking',
      wave: 3,
      why: 'Wave 3 is proven by 587 of 600; it soaks before its gate is asked.',
      next: 'The gate of wave 3 is asked: memory at most 50,000,000',
      next_at_ms: START + 754_000,
      counts: { ...NONE, proven: 581, had: 6, issued: 5, silent: 3, failed: 5 },
      members: 600,
      commands: ['pause', 'halt', 'abort'],
    }),
    one('pump-app-1.3.0', '1.3.0', 'reverting', {
      wave: 2,
      why: 'Halted by itself: memory was 61,200,448, at most 50,000,000 was allowed. It is being taken back.',
      next: 'Devices that were told to go back prove it at their next check-in',
      counts: { ...NONE, back: 80, back_silent: 4, went_back: 30, stuck: 1, failed: 5 },
      commands: ['abort'],
    }),
    one('pump-app-1.2.0', '1.2.0', 'halted', {
      why: 'Halted by itself: 3 of 4 canaries went back by themselves, and 95 % success cannot be reached any more.',
      counts: { ...NONE, proven: 1, failed: 3 },
      commands: ['revert', 'abort'],
    }),
    one('agent-0.2.0', '0.2.0', 'planned', { commands: ['start', 'abort'] }),
    one('pump-app-1.0.1', '1.0.1', 'completed', {
      wave: 4,
      counts: { ...NONE, proven: 1200 },
      commands: ['revert'],
    }),
  ];
}

function signals() {
  if (state === 'empty') return { asked: [], compared: [] };
  const minute = Math.floor(START / 60_000) * 60_000;
  const points = (base, worse) =>
    Array.from({ length: 90 }, (_, i) => {
      const at = minute - (89 - i) * 60_000;
      const wave = Math.sin(i / 9) * 0.06;
      return [
        at,
        i < 30 ? null : base * (1 + wave + (worse * (i - 30)) / 60),
        base * (1 + Math.sin(i / 9 + 0.4) * 0.05),
      ];
    });
  return {
    asked: [
      { at_ms: START - 70 * 60_000, wave: 1, name: 'memory', within: false },
      { at_ms: START - 69 * 60_000, wave: 1, name: 'memory', value: 41_207_808, within: true },
      { at_ms: START - 40 * 60_000, wave: 2, name: 'memory', value: 44_212_224, within: true },
    ],
    compared: [
      { series: 'app/rss', unit: 'B', points: points(4.1e7, 0.3) },
      { series: 'app/temp', unit: 'Cel', points: points(41, 0) },
      { series: 'app/pressure', unit: 'Pa', points: points(2.5e5, 0.02) },
      { series: 'app/cpu', unit: '/', points: points(0.12, 0.1) },
    ],
  };
}

function events(query) {
  const acts = [
    [
      'user/anna',
      'device.list',
      'device/pump-000001',
      { serial: 'PUMP-000001', role: 'device', zone: 'hall' },
    ],
    [
      'device/pump-000001',
      'device.enrol',
      'device/pump-000001',
      { purpose: 'tls', key: hex(3), new_key: true },
    ],
    [
      'user/ben',
      'rollout.create',
      'rollout/pump-app-1.1.0-1',
      { product: 'pump-app', version: '1.1.0' },
    ],
    ['control', 'rollout.wave_opened', 'rollout/pump-app-1.1.0-1', { wave: 2, members: 120 }],
    ['token/ben/ci', 'rollout.halt', 'rollout/pump-app-1.3.0', { why: 'memory was 61,200,448' }],
  ];
  const length = state === 'empty' ? 0 : 1_240;
  const subject = query.get('subject');
  const first = query.has('after') ? Number(query.get('after')) + 1 : 0;
  const limit = Number(query.get('limit') ?? 1_000);
  const all = [];
  for (let sequence = first; sequence < length && all.length < limit; sequence += 1) {
    const [actor, action, about, detail] = acts[sequence % acts.length];
    if (subject && about !== subject) continue;
    all.push({
      sequence,
      at_ms: START - (length - sequence) * 41_000,
      actor,
      action,
      subject: about,
      detail,
    });
  }
  const last = all.at(-1)?.sequence;
  return {
    events: all,
    covered: length - 2,
    next: last !== undefined && last < length - 1 ? last : undefined,
  };
}

function alerts(query) {
  const one = (id, priority, state, sentence, more = {}) => ({
    id,
    rule: sentence.split(' ')[0].toLowerCase(),
    subject: 'device/pump-000001',
    sentence,
    priority,
    state,
    since_ms: START - id * 47_000,
    count: 1,
    ...more,
  });
  const all = [
    one(
      9,
      'critical',
      'firing',
      'Gateway gw-yard-1 has not been heard for 12 minutes; 412 devices are behind it.',
      {
        subject: 'gateway/gw-yard-1',
        rule: 'gateway-silent',
        count: 412,
        runbook: 'gateway-away',
        escalates_at_ms: START + 200_000,
      },
    ),
    one(8, 'warning', 'firing', 'Rollout pump-app-1.2.0 halted at its canaries.', {
      subject: 'rollout/pump-app-1.2.0',
      rule: 'rollout-halted',
      runbook: 'rollouts',
    }),
    one(7, 'warning', 'acknowledged', 'Clock of meter-000042 is 4 min off.', {
      acknowledged_by: 'user/anna',
      acknowledged_at_ms: START - 90_000,
      note: 'battery is being replaced',
      rule: 'clock-off',
    }),
    one(6, 'notice', 'firing', 'Certificate of valve-000311 ends in 9 days.', {
      silenced_until_ms: START + DAY,
      rule: 'certificate-ends',
    }),
    one(3, 'critical', 'resolved', 'Evidence log took nothing for 40 s.', {
      resolved_at_ms: START - 30 * 60_000,
      rule: 'evidence-behind',
      subject: 'site',
    }),
  ];
  const is = name => query.get(name);
  const shown = all.filter(
    a =>
      (!is('state') ||
        a.state === is('state') ||
        (is('state') === 'open' && a.state !== 'resolved')) &&
      (!is('priority') || a.priority === is('priority')),
  );
  return state === 'empty'
    ? { alerts: [], firing: 0 }
    : { alerts: shown, firing: all.filter(a => a.state === 'firing').length };
}

function approvals(query) {
  const one = (id, what, subject, sentence, state, more) => ({
    id,
    what,
    subject,
    sentence,
    asked_by: 'user/ben',
    asked_as: 'releaser',
    seconds: ['operator', 'security_officer'],
    asked_at_ms: START - HOUR,
    until_ms: START + 23 * HOUR,
    state,
    ...more,
  });
  const all = [
    one(
      '5',
      'emergency_rollout',
      'rollout/pump-app-1.1.1',
      'Roll out pump-app 1.1.1 to zones hall, yard, 100 % of it at once',
      'open',
      {
        act: {
          act: 'create_rollout',
          order: { product: 'pump-app', version: '1.1.1', waves: [{ percent: 100 }], start: true },
        },
      },
    ),
    one(
      '4',
      'quarantine_release',
      'device/pump-000007',
      'Let pump-000007 back from quarantine',
      'open',
      {
        asked_by: 'user/anna',
        asked_as: 'security_officer',
        seconds: ['operator', 'administrator'],
        sites: ['hamburg'],
        act: { act: 'release_device', device: 'pump-000007' },
      },
    ),
    one('6', 'grant_roles', 'user/dora', 'Make user dora: viewer of every site', 'open', {
      asked_by: 'user/anna',
      asked_as: 'administrator',
      seconds: ['security_officer'],
      act: { act: 'create_user', name: 'dora', grants: [{ role: 'viewer' }] },
    }),
    one('3', 'grant_roles', 'user/cleo', 'Let user cleo be releaser of every site, and not nothing', 'refused', {
      asked_as: 'administrator',
      seconds: ['security_officer'],
      decided_by: 'user/dora',
      decided_at_ms: START - 2 * DAY,
      reason: 'cleo has left the team',
    }),
  ];
  const wanted = query.get('state');
  return { approvals: state === 'empty' ? [] : all.filter(one => !wanted || one.state === wanted) };
}

const SCOPES = {
  reads: [
    'telemetry.read',
    'fleet.read',
    'releases.read',
    'rollouts.read',
    'evidence.read',
    'metrics.read',
    'alerts.read',
  ],
  more: [
    'fleet.enrol',
    'fleet.narrow',
    'fleet.widen',
    'releases.write',
    'rollouts.write',
    'rollouts.narrow',
    'alerts.write',
    'users.read',
    'users.narrow',
    'users.write',
    'approvals.write',
    'settings.write',
  ],
};

function me() {
  const roles = state === 'viewer' ? ['viewer'] : ['administrator', 'releaser', 'security_officer'];
  return {
    actor: 'user/anna',
    user: 'anna',
    site: 'rotterdam',
    grants: roles.map(role => ({ role })),
    scopes: state === 'viewer' ? SCOPES.reads : [...SCOPES.reads, ...SCOPES.more],
    until_ms: START + 8 * HOUR,
  };
}

function report() {
  const isEmpty = state === 'empty';
  return {
    site: 'rotterdam',
    from_ms: START - 7 * DAY,
    until_ms: START,
    made_at_ms: START,
    devices: isEmpty ? 0 : 100_000,
    enrolled: isEmpty ? 0 : 96_012,
    quarantined: isEmpty ? 0 : 1_512,
    revoked: isEmpty ? 0 : 498,
    heard: isEmpty ? 0 : 95_870,
    silent: isEmpty ? [] : FLEET.slice(100, 190).map(one => one.id),
    versions: isEmpty
      ? {}
      : { 'pump-app 1.0.0': 68_604, 'pump-app 1.1.0': 26_465, 'pump-app 1.2.0': 2_931 },
    rollouts: isEmpty
      ? []
      : rollouts().map(one => ({
          id: one.id,
          phase: one.phase,
          proven: one.counts.proven,
          failed: one.counts.failed,
          went_back: one.counts.went_back,
          cohort: one.cohort,
        })),
    alerts_by_priority: isEmpty ? {} : { critical: 2, warning: 11, notice: 40 },
    ...(isEmpty ? {} : { acknowledged_after_ms: 252_000 }),
    readings: isEmpty ? 0 : 58_060_800_112,
    gaps: isEmpty ? 0 : 31,
    quarantined_messages: isEmpty ? 0 : 408,
    acts: isEmpty
      ? {}
      : {
          'device.enrol': 212,
          'rollout.create': 5,
          'device.quarantine': 3,
          'alert.acknowledge': 41,
        },
    violations: {},
  };
}

const isEmpty = () => state === 'empty';

const ANSWERS = [
  [/^\/v1\/session$/, me],
  [/^\/v1\/inventory$/, (_, query) => inventory(query)],
  [/^\/v1\/inventory\/summary$/, (_, query) => summary(query)],
  [/^\/v1\/devices\/([^/]+)$/, ([, id]) => device(decodeURIComponent(id))],
  [/^\/v1\/devices\/[^/]+\/history$/, (_, query) => history(query)],
  [
    /^\/v1\/releases$/,
    () => ({
      releases: isEmpty()
        ? []
        : ['1.0.0', '1.1.0', '1.2.0', '1.3.0'].map((version, i) => ({
            product: 'pump-app',
            version,
            security_version: i > 1 ? 2 : 1,
            hardware: ['plimsoll-linux-amd64', 'pump-box'],
            must_pass: i === 3 ? ['1.1.0'] : [],
            path: `pump-app/${version}/pump-box.bin`,
            sha256: hex(40 + i),
            length: 4_701_472 + i * 4096,
          })),
      root: 1,
      timestamp: 9,
      snapshot: 9,
      targets: 6,
      until_ms: START + 2 * DAY,
      ...(isEmpty() ? {} : { failed: 'snapshot.json: expected version 10, found 9' }),
    }),
  ],
  [/^\/v1\/rollouts$/, () => ({ rollouts: rollouts() })],
  [/^\/v1\/rollouts\/([^/]+)$/, ([, id]) => rollouts().find(one => one.id === id)],
  [/^\/v1\/rollouts\/[^/]+\/signals$/, signals],
  [
    /^\/v1\/rollouts\/[^/]+\/devices$/,
    () => ({
      devices: [
        'proven',
        'had',
        'issued',
        'silent',
        'failed',
        'back',
        'back_silent',
        'stuck',
        'went_back',
      ].map((known, i) => ({
        device: FLEET[i].id,
        known,
        was_sha256: hex(i + 1),
        ...(known === 'issued' ? { due_ms: START + DAY } : {}),
      })),
      next: 'x',
    }),
  ],
  [/^\/v1\/events$/, (_, query) => events(query)],
  [/^\/v1\/evidence\/export$/, () => ({ plimsoll_evidence: 1 })],
  [/^\/v1\/alerts$/, (_, query) => alerts(query)],
  [
    /^\/v1\/silences$/,
    () => ({
      silences: isEmpty()
        ? []
        : [
            {
              id: 1,
              rule: 'certificate-ends',
              until_ms: START + DAY,
              reason: 'renewal is planned',
              by: 'user/anna',
              at_ms: START,
            },
          ],
    }),
  ],
  [
    /^\/v1\/alert-rules$/,
    () => ({
      rules: [
        [
          'gateway-silent',
          'critical',
          'Gateway {subject} has not been heard for {value} ms.',
          'operator',
          { silence: { role: 'gateway' } },
          300_000,
        ],
        [
          'rollout-halted',
          'warning',
          '{subject} halted.',
          'releaser',
          { metric: { name: 'plimsoll_rollouts', labels: { phase: 'halted' } } },
          0,
        ],
        [
          'invariant-broken',
          'critical',
          'Invariant {subject} did not hold.',
          'security_officer',
          { sql: 'select subject, value from broken' },
          0,
        ],
      ].map(([id, priority, sentence, owner, signal, above]) => ({
        id,
        priority,
        sentence,
        owner,
        signal,
        when: { above },
        every_ms: 15_000,
        enabled: true,
      })),
      states: {
        'gateway-silent': {
          shipped: true,
          changed: false,
          looked_at_ms: Date.now() - 4_000,
          pending: 0,
          open: 1,
        },
        'rollout-halted': {
          shipped: true,
          changed: false,
          looked_at_ms: Date.now() - 9_000,
          pending: 0,
          open: 0,
        },
        'invariant-broken': {
          shipped: true,
          changed: true,
          looked_at_ms: Date.now() - 2_000,
          trouble: 'the store did not answer within 2 s',
          pending: 0,
          open: 0,
        },
      },
    }),
  ],
  [
    /^\/v1\/alert-targets$/,
    () => ({
      targets: isEmpty()
        ? []
        : [
            {
              id: 'night',
              way: { webhook: { url: 'https://pager.example/plimsoll' } },
              from_priority: 'critical',
              reports: false,
              has_secret: true,
              waiting: 0,
              delivered_at_ms: START,
            },
          ],
    }),
  ],
  [/^\/v1\/approvals$/, (_, query) => approvals(query)],
  [
    /^\/v1\/approvals\/(\d+)$/,
    ([, id]) => approvals(new URLSearchParams()).approvals.find(one => one.id === id),
  ],
  [
    /^\/v1\/users$/,
    () => ({
      users: [
        {
          name: 'anna',
          grants: [{ role: 'administrator' }, { role: 'security_officer' }],
          sessions: 2,
        },
        { name: 'ben', grants: [{ role: 'releaser', site: 'hamburg' }], sessions: 0 },
        { name: 'cleo', grants: [{ role: 'viewer' }], sessions: 0, disabled: true },
      ].map(user => ({
        disabled: false,
        created_at_ms: START - 90 * DAY,
        signed_in_at_ms: START - HOUR,
        ...user,
      })),
    }),
  ],
  [
    /^\/v1\/tokens$/,
    () => ({
      tokens: isEmpty()
        ? []
        : [
            {
              id: 't1',
              user: 'ben',
              name: 'ci',
              scopes: ['releases.read', 'rollouts.write'],
              groups: ['development'],
              created_at_ms: START - 9 * DAY,
              until_ms: START + 80 * DAY,
              used_at_ms: START - 300_000,
            },
            {
              id: 't2',
              user: 'anna',
              name: 'nightly report',
              scopes: ['telemetry.read'],
              created_at_ms: START - 99 * DAY,
              until_ms: START + DAY,
              revoked_at_ms: START - DAY,
            },
          ],
    }),
  ],
  [
    /^\/v1\/sites$/,
    () => ({ sites: isEmpty() ? [] : [{ id: 'hamburg', zones: ['line-1', 'line-2'] }] }),
  ],
  [
    /^\/v1\/settings\/two-people$/,
    () => ({ needed_for: isEmpty() ? [] : ['grant_roles', 'quarantine_release'] }),
  ],
  [/^\/v1\/reports\/weekly$/, report],
];

const TYPES = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.svg': 'image/svg+xml',
};
// The same policy as control's, so that what it forbids is seen here first.
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
  "base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

function refuse(response, status, word, title, detail) {
  response.writeHead(status, { 'Content-Type': 'application/problem+json' });
  response.end(JSON.stringify({ type: `urn:plimsoll:problem:${word}`, title, status, detail }));
}

async function serve(request, response) {
  const url = new URL(request.url, 'http://here');
  const named = /^\/state\/([\w-]+)$/.exec(url.pathname);
  if (named) {
    state = named[1];
    return response.end(state);
  }
  if (!url.pathname.startsWith('/v1/')) return file(url.pathname, response);
  if (url.pathname === '/v1/stream') {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    return response.write(': here\n\n');
  }
  if (state === 'slow' && url.pathname !== '/v1/session') return;
  if (state === 'signed-out')
    return refuse(response, 401, 'unauthenticated', 'nobody is signed in', 'expected a session');
  if (state === 'failing' && url.pathname !== '/v1/session') {
    return refuse(
      response,
      500,
      'failed',
      'the call failed',
      'reading the registry: disk I/O error',
    );
  }
  let body = '';
  for await (const chunk of request) body += chunk;
  if (url.pathname === '/v1/query') return send(response, answer(JSON.parse(body).sql));
  if (request.method === 'POST' && url.pathname === '/v1/users') {
    response.writeHead(202, { 'Content-Type': 'application/json' });
    const open = approvals(new URLSearchParams('state=open')).approvals;
    return response.end(JSON.stringify(open.at(-1)));
  }
  if (request.method !== 'GET') return send(response, {});
  for (const [path, of] of ANSWERS) {
    const match = path.exec(url.pathname);
    const found = match && of(match, url.searchParams);
    if (found) return send(response, found);
  }
  refuse(response, 404, 'not_found', 'there is no such thing', `nothing at ${url.pathname}`);
}

function send(response, body) {
  response.writeHead(200, { 'Content-Type': 'application/json' });
  response.end(JSON.stringify(body));
}

async function file(path, response) {
  const name = path.startsWith('/assets/') ? path.slice(1) : 'index.html';
  try {
    const bytes = await readFile(join(DIST, name));
    response.writeHead(200, {
      'Content-Type': TYPES[extname(name)],
      'Content-Security-Policy': POLICY,
    });
    response.end(bytes);
  } catch {
    refuse(response, 404, 'not_found', 'there is no such file', name);
  }
}

createServer((request, response) => {
  serve(request, response).catch(error =>
    refuse(response, 500, 'failed', 'the fixture failed', String(error)),
  );
}).listen(PORT, '127.0.0.1', () => console.log(`http://127.0.0.1:${PORT}/console/fleet`));
