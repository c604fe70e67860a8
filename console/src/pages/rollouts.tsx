import { Asked, Empty } from '../parts/asked.tsx';
import { PhaseBadge } from '../parts/badge.tsx';
import { ScopedButton } from '../parts/button.tsx';
import { Page } from '../parts/page.tsx';
import { type Col, Table } from '../parts/table.tsx';
import { Progress } from '../rollout/progress.tsx';
import { usually } from '../rollout/says.ts';
import { go, Link, pathTo } from '../route.tsx';
import { useAsk } from '../site/ask.ts';
import type { Rollout, Rollouts } from '../site/contract.ts';
import { Until, When } from '../words/when.tsx';

const COLS: Col<Rollout>[] = [
  {
    head: 'Rollout',
    cell: one => (
      <>
        <Link to={pathTo('rollouts', one.id)}>{one.id}</Link>
        <div className="faint">
          {one.order.product} {one.order.version}
        </div>
      </>
    ),
  },
  { head: 'State', cell: one => <PhaseBadge phase={one.phase} /> },
  { head: 'Wave', cell: one => `${one.wave} of ${one.waves}`, num: true, wide: true },
  { head: 'Run it', cell: one => <Progress rollout={one} />, className: 'progress-col' },
  { head: 'Why', cell: one => <span className="why">{one.why ?? usually(one)}</span>, wide: true },
  {
    head: 'Next',
    cell: one => (one.next_at_ms === undefined ? '–' : <Until ms={one.next_at_ms} />),
    wide: true,
  },
  { head: 'Made', cell: one => <When ms={one.created_at_ms} />, wide: true },
];

export function RolloutsPage() {
  const rollouts = useAsk<Rollouts>('/v1/rollouts');
  return (
    <Page
      title="Rollouts"
      lead="Releases on their way to cohorts, newest first."
      actions={
        <ScopedButton
          scope="rollouts.write"
          kind="main"
          icon="plus"
          onClick={() => go(pathTo('new-rollout'))}
        >
          New rollout
        </ScopedButton>
      }
    >
      <Asked
        of={rollouts}
        waiting={
          <Table
            stacks
            caption="Rollouts"
            cols={COLS}
            rows={undefined}
            rowKey={one => one.id}
            empty=""
            waiting={6}
          />
        }
      >
        {answer => (
          <Table
            stacks
            caption="Rollouts"
            cols={COLS}
            rows={answer.rollouts}
            rowKey={one => one.id}
            empty={
              <Empty title="Nothing was rolled out yet">
                <p>
                  A rollout sends a <Link to={pathTo('releases')}>release</Link> to a cohort in
                  waves, with a gate between them.
                </p>
              </Empty>
            }
          />
        )}
      </Asked>
    </Page>
  );
}
