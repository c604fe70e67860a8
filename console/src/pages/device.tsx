import { type ReactNode, useState } from 'react';
import { TakesTwo } from '../approvals/waits.tsx';
import { Charts } from '../device/charts.tsx';
import { History } from '../device/history.tsx';
import { Download } from '../evidence/download.tsx';
import { Asked, Empty, Lines } from '../parts/asked.tsx';
import { Badge, StandingBadge, type Tone } from '../parts/badge.tsx';
import { CopyButton, ScopedButton } from '../parts/button.tsx';
import { Concerns } from '../parts/concerns.tsx';
import { Confirm } from '../parts/dialog.tsx';
import { Field } from '../parts/field.tsx';
import type { IconName } from '../parts/icon.tsx';
import { Facts, Page, Panel } from '../parts/page.tsx';
import { ProblemNote } from '../parts/problem.tsx';
import { type Col, Table } from '../parts/table.tsx';
import { Link, pathTo } from '../route.tsx';
import { useAsk } from '../site/ask.ts';
import { Refused } from '../site/call.ts';
import type { Component, Device, FleetKey, Software, Standing } from '../site/contract.ts';
import { Ago, Day, When } from '../words/when.tsx';

/** One device: who it is, what it runs, what it says, what became of it. */
export function DevicePage({ id }: { id: string }) {
  const device = useAsk<Device>(`/v1/devices/${encodeURIComponent(id)}`);
  const [asks, setAsks] = useState<Act>();
  const line = device.data?.line;
  if (device.data === undefined && device.error instanceof Refused && device.error.status === 404) {
    return (
      <Page title={id}>
        <ProblemNote error={device.error} again={() => device.refetch()} />
      </Page>
    );
  }
  return (
    <Page
      title={id}
      className="device"
      lead={
        line ? (
          <span className="facts-line">
            <StandingBadge standing={line.standing} />
            <span>{line.role}</span>
            <span>
              zone <Link to={pathTo('fleet', undefined, { zone: line.zone })}>{line.zone}</Link>
            </span>
            <span>
              group <Link to={pathTo('fleet', undefined, { group: line.group })}>{line.group}</Link>
            </span>
            {line.gateway && (
              <span>
                by <Link to={pathTo('devices', line.gateway)}>{line.gateway}</Link>
              </span>
            )}
            <span>
              heard <Ago ms={line.seen_at_ms} />
            </span>
          </span>
        ) : (
          '\u00a0'
        )
      }
      actions={line && <Actions standing={line.standing} ask={setAsks} />}
    >
      <Concerns of={device.data?.concerns} />
      <Charts device={id} />
      <div className="halves">
        <Panel title="Runs">
          <Asked of={device} waiting={<Lines n={5} />}>
            {({ software }) => <Runs software={software} />}
          </Asked>
        </Panel>
        <Panel title="Identity">
          <Asked of={device} waiting={<Lines n={5} />}>
            {({ identity }) => (
              <>
                <Facts
                  of={[
                    ['Serial number', identity.serial],
                    ['Listed', <When key="listed" ms={identity.listed_at_ms} />],
                    ['First enrolled', <When key="enrolled" ms={identity.enrolled_at_ms} />],
                    ['Standing since', <When key="since" ms={identity.changed_at_ms} />],
                  ]}
                />
                <Keys keys={identity.keys} />
                <IdentityActs standing={identity.standing} ask={setAsks} />
              </>
            )}
          </Asked>
        </Panel>
      </div>
      <History device={id} />
      <Forensics device={id} />
      {asks && line && (
        <AskFirst id={id} act={asks} group={line.group} onClose={() => setAsks(undefined)} />
      )}
    </Page>
  );
}

type Act = 'quarantine' | 'release' | 'revoke' | 'group' | 'reenrol' | 'decommission';

function Actions({
  standing,
  ask,
}: {
  standing: Standing;
  ask: (act: Act) => void;
}) {
  return (
    <>
      <ScopedButton scope="fleet.enrol" onClick={() => ask('group')}>
        Group…
      </ScopedButton>
      {standing === 'enrolled' && (
        <ScopedButton scope="fleet.narrow" icon="stop" onClick={() => ask('quarantine')}>
          Quarantine…
        </ScopedButton>
      )}
      {standing === 'quarantined' && (
        <ScopedButton scope="fleet.widen" icon="ok" onClick={() => ask('release')}>
          Release…
        </ScopedButton>
      )}
      {(standing === 'enrolled' || standing === 'quarantined') && (
        <ScopedButton scope="fleet.narrow" kind="danger" icon="bad" onClick={() => ask('revoke')}>
          Revoke…
        </ScopedButton>
      )}
    </>
  );
}

/** What ends an identity in good order, or begins it anew. */
function IdentityActs({ standing, ask }: { standing: Standing; ask: (act: Act) => void }) {
  const isOver = standing === 'revoked' || standing === 'decommissioned';
  if (isOver) return null;
  return (
    <div className="buttons start">
      {standing !== 'listed' && (
        <ScopedButton scope="fleet.widen" onClick={() => ask('reenrol')}>
          Re-enrol…
        </ScopedButton>
      )}
      <ScopedButton scope="fleet.narrow" kind="danger" onClick={() => ask('decommission')}>
        Decommission…
      </ScopedButton>
    </div>
  );
}

/** What each act does, before it is done. */
function AskFirst({
  id,
  act,
  group,
  onClose,
}: {
  id: string;
  act: Act;
  group: string;
  onClose: () => void;
}) {
  const [name, setName] = useState(group);
  const path = `/v1/devices/${encodeURIComponent(id)}/${act}`;
  const says: Record<
    Act,
    { title: string; verb: string; says: ReactNode; danger?: boolean; typed?: string }
  > = {
    quarantine: {
      title: `Quarantine ${id}?`,
      verb: 'Quarantine',
      danger: true,
      says: (
        <>
          <p>
            Its gateways cut it off within seconds. Nothing that it says from then on becomes
            history; it may only enrol again.
          </p>
          <p>It can be released: nothing is lost that it has kept.</p>
        </>
      ),
    },
    release: {
      title: `Release ${id} from quarantine?`,
      verb: 'Release',
      says: (
        <p>
          Its gateways let it back, and what it says counts again.{' '}
          <TakesTwo what="quarantine_release" />
        </p>
      ),
    },
    revoke: {
      title: `Revoke ${id} for good?`,
      verb: 'Revoke for good',
      danger: true,
      typed: id,
      says: (
        <p>
          Its identity ends and never comes back: its keys count nowhere any more, its live session
          is cut, and what it has kept and not sent is not taken. What it said until now stays.
        </p>
      ),
    },
    reenrol: {
      title: `Have ${id} enrol anew?`,
      verb: 'Have it enrol anew',
      danger: true,
      says: (
        <>
          <p>
            All its keys are taken away at once and its sessions are cut. It enrols anew by its
            birth certificate, and how it stands does not change.
          </p>
          <p>What its keys sealed until now is believed still.</p>
        </>
      ),
    },
    decommission: {
      title: `Decommission ${id} for good?`,
      verb: 'Decommission for good',
      danger: true,
      typed: id,
      says: (
        <p>
          Its life here ends in good order: its identity is dead, it is off the ownership list, and
          no word of it is believed any more. What it said until now stays.
        </p>
      ),
    },
    group: {
      title: `Group of ${id}`,
      verb: 'Change group',
      says: (
        <p>
          A group is a cohort for rollouts and filters: development, pilot, production, or a name of
          your own.
        </p>
      ),
    },
  };
  const of = says[act];
  return (
    <Confirm
      title={of.title}
      says={of.says}
      verb={of.verb}
      danger={of.danger ?? false}
      {...(of.typed ? { typed: of.typed } : {})}
      order={() => (act === 'group' ? { path, body: { group: name } } : { path })}
      onClose={onClose}
    >
      {act === 'group' && <Field label="Group" required value={name} onChange={setName} />}
    </Confirm>
  );
}

/** One file with all that is known of it, and what proves it: for whoever judges it elsewhere. */
function Forensics({ device }: { device: string }) {
  return (
    <Panel title="Forensics">
      <p>
        One file with its keys, firmware, gateways, refusals, gaps and what people did, each with
        what proves it.
      </p>
      <Download
        path={`/v1/devices/${encodeURIComponent(device)}/forensics`}
        name={`${device}-forensics.json`}
      >
        Download the file
      </Download>
    </Panel>
  );
}

const BOOTS: Record<string, [Tone, IconName]> = {
  confirmed: ['ok', 'ok'],
  trial: ['info', 'wait'],
  reverted: ['warn', 'back'],
  fallback: ['bad', 'warn'],
};

function BootBadge({ boot }: { boot: string }) {
  const [tone, icon] = BOOTS[boot] ?? ['calm', 'dot'];
  return (
    <Badge tone={tone} icon={icon}>
      {boot}
    </Badge>
  );
}

function Runs({ software }: { software: Software | undefined }) {
  if (!software) {
    return (
      <Empty title="It has not said what it runs">
        <p>A device says so, signed, at its first check-in.</p>
      </Empty>
    );
  }
  const cols: Col<Component>[] = [
    {
      head: 'Product',
      cell: one => (
        <>
          <span className="nowrap">{one.product}</span>
          <div className="faint">{one.hardware}</div>
        </>
      ),
    },
    { head: 'Version', cell: one => <strong className="num">{one.version}</strong> },
    { head: 'Boot', cell: one => <BootBadge boot={one.boot} /> },
    {
      head: 'Security',
      cell: one => `${one.security_version}, floor ${one.floor}`,
      num: true,
      wide: true,
    },
    {
      head: 'Image',
      cell: one => <Digest of={one.sha256} what="digest of the image" />,
      wide: true,
    },
  ];
  return (
    <>
      <Table
        caption="What it runs"
        cols={cols}
        rows={software.components}
        rowKey={one => `${one.product} ${one.hardware}`}
        empty={<Empty title="It runs nothing that is updated" />}
      />
      {software.outcome && (
        <p className="outcome">
          Its newest install{' '}
          {software.outcome.end === 'underway'
            ? 'is under way'
            : `ended as ${software.outcome.end}`}
          {software.outcome.rollout && (
            <>
              {' '}
              by{' '}
              <Link to={pathTo('rollouts', software.outcome.rollout)}>
                {software.outcome.rollout}
              </Link>
            </>
          )}
          {software.outcome.reason && `: ${software.outcome.reason}`}
        </p>
      )}
      <p className="faint under">
        By its own signed word, number {software.number}, <Ago ms={software.received_at_ms} />.
      </p>
    </>
  );
}

function Keys({ keys }: { keys: FleetKey[] }) {
  const cols: Col<FleetKey>[] = [
    { head: 'Key', cell: key => <Digest of={key.id} what={`${key.purpose} key`} /> },
    { head: 'For', cell: key => (key.purpose === 'seal' ? 'sealing' : 'TLS') },
    { head: 'Made', cell: key => <Day ms={key.created_at_ms} />, wide: true },
    {
      head: 'Until',
      cell: key =>
        key.retired_at_ms === null ? (
          <Day ms={key.not_after_ms} />
        ) : (
          <span className="faint">
            replaced <Ago ms={key.retired_at_ms} />
          </span>
        ),
    },
  ];
  return (
    <Table
      caption="Keys, newest first"
      cols={cols}
      rows={keys.toReversed()}
      rowKey={key => key.id}
      empty={<Empty title="It has no key yet" />}
    />
  );
}

export function Digest({ of, what }: { of: string; what: string }) {
  return (
    <span className="digest">
      <code title={of}>{of.slice(0, 12)}…</code>
      <CopyButton text={of} what={what} />
    </span>
  );
}
