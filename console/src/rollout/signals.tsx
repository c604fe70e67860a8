import { lazy, Suspense, useState } from 'react';
import { Asked, Empty, Lines } from '../parts/asked.tsx';
import { Badge } from '../parts/badge.tsx';
import { Button } from '../parts/button.tsx';
import { Concerns } from '../parts/concerns.tsx';
import { Panel } from '../parts/page.tsx';
import { type Col, Table } from '../parts/table.tsx';
import { useAsk } from '../site/ask.ts';
import type {
  AskedSignal,
  ComparedSeries,
  NewSignal,
  Rollout,
  RolloutSignals,
} from '../site/contract.ts';
import { count, unitName, value } from '../words/number.ts';
import { When } from '../words/when.tsx';

const Chart = lazy(() => import('../chart/chart.tsx'));

const CHART_PX = 160;
const MINUTE_MS = 60_000;

/** What the gates were told, and what devices with the release say beside those without it. */
export function Signals({ rollout }: { rollout: Rollout }) {
  const signals = useAsk<RolloutSignals>(`/v1/rollouts/${encodeURIComponent(rollout.id)}/signals`);
  return (
    <>
      <Panel title="Gates">
        <Asked of={signals} waiting={<Lines n={4} />}>
          {({ asked }) => <Gates asked={asked} rollout={rollout} />}
        </Asked>
      </Panel>
      <Panel
        title="Both cohorts"
        aside={
          <ul className="legend">
            <li>
              <span className="stroke first" aria-hidden="true" /> with {rollout.order.version}
            </li>
            <li>
              <span className="stroke second" aria-hidden="true" /> the others
            </li>
          </ul>
        }
      >
        <Asked of={signals} waiting={<div className="pairs">{[0, 1].map(awaited)}</div>}>
          {({ compared, missing }) =>
            compared.length === 0 && missing?.length ? (
              <Concerns of={missing} />
            ) : compared.length === 0 ? (
              <Empty title="Nothing to compare yet">
                <p>
                  Once a device of the cohort runs the release, its means stand beside those of the
                  others, by minute.
                </p>
              </Empty>
            ) : (
              <Pairs of={compared} />
            )
          }
        </Asked>
      </Panel>
    </>
  );
}

/** Charts that are shown before somebody asks for all: a host says some sixty series. */
const PAIRS_SHOWN = 6;

function Pairs({ of }: { of: ComparedSeries[] }) {
  const [all, setAll] = useState(false);
  return (
    <>
      <div className="pairs">
        {(all ? of : of.slice(0, PAIRS_SHOWN)).map(series => (
          <Compared key={series.series} of={series} />
        ))}
      </div>
      {of.length > PAIRS_SHOWN && (
        <p className="more">
          <Button aria-expanded={all} onClick={() => setAll(!all)}>
            {all ? 'Fewer' : `All ${count(of.length)} series`}
          </Button>
        </p>
      )}
    </>
  );
}

function limitOf(signal: NewSignal): string {
  if (signal.at_most !== undefined) return `at most ${value(signal.at_most)}`;
  return `at least ${value(signal.at_least)}`;
}

function Gates({ asked, rollout }: { asked: AskedSignal[]; rollout: Rollout }) {
  const signals = rollout.order.signals ?? [];
  if (signals.length === 0) {
    return (
      <Empty title="No signal is asked between waves">
        <p>Only what devices prove of themselves decides.</p>
      </Empty>
    );
  }
  const cols: Col<AskedSignal>[] = [
    { head: 'Asked', cell: one => <When ms={one.at_ms} /> },
    { head: 'Wave', cell: one => one.wave, num: true },
    { head: 'Signal', cell: one => one.name },
    {
      head: 'Answer',
      cell: one => (one.value === undefined ? 'none' : value(one.value)),
      num: true,
    },
    {
      head: 'Verdict',
      cell: one =>
        one.value === undefined ? (
          <Badge tone="warn" icon="pause">
            held
          </Badge>
        ) : one.within ? (
          <Badge tone="ok" icon="ok">
            within
          </Badge>
        ) : (
          <Badge tone="bad" icon="stop">
            beyond
          </Badge>
        ),
    },
  ];
  return (
    <>
      <ul className="signals">
        {signals.map(signal => (
          <li key={signal.name}>
            <strong>{signal.name}</strong>: {limitOf(signal)}
            <code className="sql">{signal.sql}</code>
          </li>
        ))}
      </ul>
      <Table
        caption="What gates were told, newest first"
        cols={cols}
        rows={asked.toReversed()}
        rowKey={one => `${one.at_ms} ${one.name}`}
        empty={<Empty title="No gate was asked yet" />}
      />
    </>
  );
}

function Compared({ of }: { of: ComparedSeries }) {
  const times = of.points.map(([minute]) => minute);
  const from = times[0] ?? Date.now();
  const to = times.at(-1) ?? from;
  return (
    <Suspense fallback={awaited(0)}>
      <Chart
        title={of.unit && of.unit !== 'B' ? `${of.series} [${unitName(of.unit)}]` : of.series}
        unit={of.unit}
        at={times.map(ms => ms / 1_000)}
        lines={[
          { name: 'with', style: 'first', values: of.points.map(([, having]) => having) },
          { name: 'without', style: 'second', values: of.points.map(([, , others]) => others) },
        ]}
        window={{
          from: from - MINUTE_MS / 2,
          to: Math.max(to, from + MINUTE_MS) + MINUTE_MS / 2,
          follows: false,
        }}
        height={CHART_PX}
        group="compared"
      />
    </Suspense>
  );
}

function awaited(key: number) {
  return (
    <div key={key} className="chart awaited" aria-hidden="true">
      <span className="line" />
      <div className="plot" style={{ height: CHART_PX }} />
    </div>
  );
}
