import { useQueryClient } from '@tanstack/react-query';
import { useEffect, useRef, useState } from 'react';
import { TakesTwo } from '../approvals/waits.tsx';
import { EventTable } from '../evidence/event-table.tsx';
import { Asked, Lines } from '../parts/asked.tsx';
import { PhaseBadge } from '../parts/badge.tsx';
import { ScopedButton } from '../parts/button.tsx';
import { Confirm } from '../parts/dialog.tsx';
import type { IconName } from '../parts/icon.tsx';
import { Facts, Page, Panel } from '../parts/page.tsx';
import { RolledDevices } from '../rollout/devices.tsx';
import { beginsBroadly } from '../rollout/order.ts';
import { Progress } from '../rollout/progress.tsx';
import { saidOf, usually } from '../rollout/says.ts';
import { Signals } from '../rollout/signals.tsx';
import { Waves } from '../rollout/waves.tsx';
import { Link, pathTo } from '../route.tsx';
import { useAsk } from '../site/ask.ts';
import type { NewRollout, Rollout, RolloutCommand } from '../site/contract.ts';
import type { Change } from '../site/live.ts';
import { useMe } from '../site/me.tsx';
import { may, roleName, rolesThatMay } from '../site/rights.ts';
import { isStale } from '../site/stale.ts';
import { count } from '../words/number.ts';
import { span } from '../words/time.ts';
import { Until } from '../words/when.tsx';

const ICONS: Record<RolloutCommand, IconName> = {
  start: 'run',
  pause: 'pause',
  resume: 'run',
  halt: 'stop',
  revert: 'back',
  abort: 'bad',
};

const MOVING = ['running', 'paused', 'halted', 'reverting'];

/** One rollout: where it stands and why, what comes next and when, and who may do something about it. */
export function RolloutPage({ id }: { id: string }) {
  const [asks, setAsks] = useState<RolloutCommand>();
  const rollout = useAsk<Rollout>(`/v1/rollouts/${encodeURIComponent(id)}`, { everyMs: 5_000 });
  const known = rollout.data;
  useInStep(id, known?.revision);
  return (
    <Page
      title={id}
      className="rollout"
      lead={
        known ? (
          <span className="facts-line">
            <PhaseBadge phase={known.phase} />
            <span>
              <Link to={pathTo('releases')}>
                {known.order.product} {known.order.version}
              </Link>{' '}
              for {count(known.cohort)} devices
            </span>
          </span>
        ) : (
          '\u00a0'
        )
      }
      actions={known?.commands?.map(command => {
        const said = saidOf(command, known);
        return (
          <ScopedButton
            key={command}
            scope={said.scope}
            icon={ICONS[command]}
            kind={
              said.danger
                ? 'danger'
                : command === 'start' || command === 'resume'
                  ? 'main'
                  : 'plain'
            }
            onClick={() => setAsks(command)}
          >
            {said.verb}…
          </ScopedButton>
        );
      })}
    >
      <Asked of={rollout} waiting={<Lines n={10} tall />}>
        {rollout => (
          <>
            <Now rollout={rollout} />
            <Panel title="Waves">
              <Waves rollout={rollout} />
              <Progress rollout={rollout} legend />
            </Panel>
            <Signals rollout={rollout} />
            <RolledDevices id={id} isMoving={MOVING.includes(rollout.phase)} />
            <Panel title="Ordered">
              <Ordered order={rollout.order} />
            </Panel>
            <Panel
              title="What was done"
              aside={
                <Link to={pathTo('evidence', undefined, { subject: `rollout/${id}` })}>
                  Evidence and proof
                </Link>
              }
            >
              <EventTable subject={`rollout/${id}`} limit={50} />
            </Panel>
            {asks && (
              <AskFirst rollout={rollout} command={asks} onClose={() => setAsks(undefined)} />
            )}
          </>
        )}
      </Asked>
    </Page>
  );
}

/**
 * What is asked about a rollout by other calls (devices, gates, events) is asked again when its revision is another: or the
 * page would say that it is completed, and show a device that is still on its way.
 */
function useInStep(id: string, revision: number | undefined) {
  const queries = useQueryClient();
  const shown = useRef(revision);
  useEffect(() => {
    const before = shown.current;
    shown.current = revision;
    if (before === undefined || before === revision) return;
    const change: Change = { kind: 'rollout', subject: `rollout/${id}` };
    queries.invalidateQueries({ predicate: query => isStale(query.queryKey, change) });
  }, [queries, id, revision]);
}

/** The four questions that one comes with. */
function Now({ rollout }: { rollout: Rollout }) {
  return (
    <section className="now" aria-label="Now">
      <dl aria-live="polite">
        <div>
          <dt>Why</dt>
          <dd>{rollout.why ?? usually(rollout)}</dd>
        </div>
        <div>
          <dt>Next</dt>
          <dd>
            {rollout.next ??
              (MOVING.includes(rollout.phase) ? 'It waits for a person.' : 'Nothing: it is over.')}
            {rollout.next_at_ms !== undefined && (
              <strong aria-live="off">
                {' '}
                <Until ms={rollout.next_at_ms} />
              </strong>
            )}
          </dd>
        </div>
        <div>
          <dt>Who may act</dt>
          <dd>
            <WhoMay rollout={rollout} />
          </dd>
        </div>
      </dl>
    </section>
  );
}

function WhoMay({ rollout }: { rollout: Rollout }) {
  const me = useMe();
  const commands = rollout.commands ?? [];
  if (commands.length === 0) return <>Nobody needs to: nothing can be said to it any more.</>;
  const byRoles = new Map<string, { words: string[]; mine: boolean }>();
  for (const command of commands) {
    const { scope, verb } = saidOf(command, rollout);
    const roles = rolesThatMay(scope).map(roleName).join(', ');
    const line = byRoles.get(roles) ?? { words: [], mine: may(me, scope) };
    line.words.push(verb.toLowerCase());
    byRoles.set(roles, line);
  }
  return (
    <ul>
      {[...byRoles].map(([roles, { words, mine }]) => (
        <li key={roles}>
          <strong>{words.join(', ')}</strong>: {roles}
          {mine && ' – you too'}
        </li>
      ))}
    </ul>
  );
}

function Ordered({ order }: { order: NewRollout }) {
  const cohort = [
    ...(order.cohort?.zones ?? []).map(zone => `zone ${zone}`),
    ...(order.cohort?.groups ?? []).map(group => `group ${group}`),
    ...(order.cohort?.devices ?? []),
  ];
  return (
    <>
      <Facts
        of={[
          ['Cohort', cohort.join(', ') || 'all that run the product'],
          ['Bound', order.bound === undefined ? 'the largest wave' : count(order.bound)],
          ['Success, at least', `${order.success_min_percent ?? 95} %`],
          ['Quorum', `${order.quorum_percent ?? 90} %`],
          ['Proves within', span(order.prove_within_ms ?? 86_400_000)],
          ['Comes within', span(order.come_within_ms ?? 604_800_000)],
          ['Goes back by itself', order.back?.by_itself ? 'when it halts by itself' : 'no'],
          ['Floor', order.raise ? 'raised once completed' : 'stays'],
        ]}
      />
      <details>
        <summary>The order as JSON</summary>
        {/* What scrolls must be reachable by keyboard (WCAG 2.1.1). */}
        <pre className="json" tabIndex={0}>
          {JSON.stringify(order, null, 2)}
        </pre>
      </details>
    </>
  );
}

function AskFirst({
  rollout,
  command,
  onClose,
}: {
  rollout: Rollout;
  command: RolloutCommand;
  onClose: () => void;
}) {
  const { verb, danger, says } = saidOf(command, rollout);
  return (
    <Confirm
      title={`${verb} ${rollout.id}?`}
      verb={verb}
      danger={danger}
      says={
        <>
          {says.map(sentence => (
            <p key={sentence}>{sentence}</p>
          ))}
          {command === 'start' && beginsBroadly(rollout.order) && (
            <TakesTwo what="emergency_rollout" />
          )}
        </>
      }
      order={() => ({ path: `/v1/rollouts/${encodeURIComponent(rollout.id)}/${command}` })}
      onClose={onClose}
    />
  );
}
