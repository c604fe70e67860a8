import { keepPreviousData, useQuery } from '@tanstack/react-query';
import { lazy, Suspense, useCallback, useMemo, useState } from 'react';
import type { Change } from '../chart/hand.ts';
import { type Mark, marksOf } from '../chart/mark.ts';
import {
  type Grain,
  grainName,
  grainOf,
  type Points,
  pointsOf,
  question,
  RAW_ROWS_MAX,
  reach,
} from '../chart/question.ts';
import { at, following, panned, SPANS, spanOf, type Window, zoomed } from '../chart/window.ts';
import { Asked, Empty, Lines } from '../parts/asked.tsx';
import { Button } from '../parts/button.tsx';
import { Panel } from '../parts/page.tsx';
import { ProblemNote } from '../parts/problem.tsx';
import { Scrolls } from '../parts/scrolls.tsx';
import { usePlace, useQueryText } from '../route.tsx';
import { ending, useAsk } from '../site/ask.ts';
import { ask, withQuery } from '../site/call.ts';
import type { Answer, History } from '../site/contract.ts';
import { measured, unitName } from '../words/number.ts';
import { local, span } from '../words/time.ts';
import { Ago, useNow } from '../words/when.tsx';
import { firstSeries, type Latest, useLatest } from './latest.ts';

const Chart = lazy(() => import('../chart/chart.tsx'));

const back: Change = (window, now) => panned(window, -0.5, now);
const nearer: Change = (window, now) => zoomed(window, 0.5, 0.5, now);
const farther: Change = (window, now) => zoomed(window, 2, 0.5, now);

const CHART_PX = 150;
const DAY_MS = 86_400_000;
/** More charts than this are no longer looked at together. */
const CHARTS_MAX = 8;

/** What a device measures: its newest values, and charts of those that are chosen. */
export function Charts({ device }: { device: string }) {
  const latest = useLatest(device);
  const { query } = usePlace();
  const set = useQueryText();
  const asked = query.get('series');
  const chosen = useMemo(() => {
    if (asked !== null) return asked.split(',').filter(Boolean).slice(0, CHARTS_MAX);
    return latest.data ? firstSeries(latest.data) : [];
  }, [asked, latest.data]);
  const choose = useCallback(
    (series: string[]) => set({ series: series.slice(-CHARTS_MAX).join(',') || ',' }),
    [set],
  );
  return (
    <div className="measured">
      <Panel title="Charts" className="charts">
        <ChosenCharts
          device={device}
          series={chosen}
          latest={latest.data ?? []}
          isAwaited={latest.isPending}
        />
      </Panel>
      <Panel title="Values now" className="values">
        <Asked of={latest} waiting={<Lines n={14} />}>
          {all => <Values all={all} chosen={chosen} choose={choose} />}
        </Asked>
      </Panel>
    </div>
  );
}

function Values({
  all,
  chosen,
  choose,
}: {
  all: Latest[];
  chosen: string[];
  choose: (series: string[]) => void;
}) {
  const [sought, setSought] = useState('');
  const shown = all.filter(one => one.series.toLowerCase().includes(sought.toLowerCase()));
  if (all.length === 0) return <Empty title="It has said nothing for 30 days" />;
  const toggle = (name: string) =>
    choose(chosen.includes(name) ? chosen.filter(one => one !== name) : [...chosen, name]);
  return (
    <>
      <input
        type="search"
        className="sought"
        aria-label="Find a series"
        placeholder={`Find among ${all.length} series`}
        value={sought}
        onChange={event => setSought(event.target.value)}
      />
      <Scrolls tall label="Newest values">
        <table className="table tight">
          <caption className="unseen">Newest value of each series; a tick shows its chart</caption>
          <thead className="unseen">
            <tr>
              <th scope="col">Series</th>
              <th scope="col">Value</th>
              <th scope="col">Said</th>
            </tr>
          </thead>
          <tbody>
            {shown.map(one => (
              <tr key={one.series} data-series={one.series}>
                <td>
                  {one.value === undefined ? (
                    <span className="no-chart">{one.series}</span>
                  ) : (
                    <label className="tick">
                      <input
                        type="checkbox"
                        checked={chosen.includes(one.series)}
                        onChange={() => toggle(one.series)}
                      />
                      {one.series}
                    </label>
                  )}
                </td>
                <td className="num right" data-value={one.value}>
                  {one.value === undefined ? (one.text ?? '–') : measured(one.value, one.unit)}
                </td>
                <td className="right faint">
                  <Ago ms={one.at_ms} />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
        {shown.length === 0 && <Empty title="No series is called so" />}
      </Scrolls>
    </>
  );
}

interface Drawn {
  points: Map<string, Points>;
  grain: Grain;
}

function ChosenCharts({
  device,
  series,
  latest,
  isAwaited,
}: {
  device: string;
  series: string[];
  latest: Latest[];
  isAwaited: boolean;
}) {
  const now = useNow();
  const [kept, setWindow] = useState<Window>(() => following(5 * 60_000, Date.now()));
  const window = at(kept, now);
  const change = useCallback((by: Change) => {
    const now = Date.now();
    setWindow(before => by(at(before, now), now));
  }, []);
  const width = spanOf(window);
  const asked = reach(window.from, window.to);
  const answer = useQuery({
    queryKey: ['/v1/query', 'chart', device, series.join(), asked.from, asked.to],
    queryFn: ({ signal }) => drawn(device, series, asked, width, signal),
    enabled: series.length > 0,
    placeholderData: keepPreviousData,
    // What is farther away moves slower on the screen.
    refetchInterval: window.follows ? Math.max(2_000, width / 150) : false,
  });
  const marks = useMarks(device, window.from);

  return (
    <>
      <Reins window={window} change={change} />
      {answer.error && <ProblemNote error={answer.error} again={() => answer.refetch()} />}
      {series.length === 0 && latest.length > 0 && (
        <Empty title="No series is chosen">
          <p>Tick a series under “Values now”.</p>
        </Empty>
      )}
      <div className="stack" data-follows={window.follows}>
        {(isAwaited ? ['', '', ''] : series).map((name, i) => {
          const points = answer.data?.points.get(name);
          const unit = latest.find(one => one.series === name)?.unit;
          return (
            <Suspense key={name || i} fallback={<Awaited />}>
              {name === '' || answer.isPending ? (
                <Awaited />
              ) : (
                <Chart
                  title={unit && unit !== 'B' ? `${name} [${unitName(unit)}]` : name}
                  unit={unit}
                  at={points?.at ?? []}
                  lines={[
                    {
                      name,
                      style: 'first',
                      values: points?.mean ?? [],
                      low: points?.low ?? [],
                      high: points?.high ?? [],
                    },
                  ]}
                  marks={marks}
                  window={window}
                  onWindow={change}
                  height={CHART_PX}
                  group={`device/${device}`}
                />
              )}
            </Suspense>
          );
        })}
      </div>
      {series.length > 0 && (
        <p className="faint under">
          {answer.data ? `Shown: ${grainName(answer.data.grain)}. ` : ''}
          <span className="with-mouse">
            Drag to move, Shift and drag to choose a stretch, Ctrl and wheel to zoom.
          </span>
        </p>
      )}
      <MarkList marks={marks.filter(mark => mark.at >= window.from && mark.at <= window.to)} />
      {answer.data && (
        <AsTable drawn={answer.data} series={series} window={window} latest={latest} />
      )}
    </>
  );
}

async function drawn(
  device: string,
  series: string[],
  range: { from: number; to: number },
  width: number,
  signal: AbortSignal,
): Promise<Drawn> {
  const put = (grain: Grain) =>
    ending(
      ask<Answer>(
        '/v1/query',
        { sql: question(device, series, range.from, range.to, grain), rows_max: RAW_ROWS_MAX },
        signal,
      ),
    );
  let grain = grainOf(width);
  let answer = await put(grain);
  if (answer.truncated && 'raw' in grain) {
    grain = grainOf(width, true);
    answer = await put(grain);
  }
  return { points: pointsOf(answer), grain };
}

/** What ran when, from the first day in sight on. */
function useMarks(device: string, from: number): Mark[] {
  const from_ms = Math.floor(from / DAY_MS) * DAY_MS;
  const path = (kind: string) =>
    withQuery(`/v1/devices/${encodeURIComponent(device)}/history`, { kind, from_ms, limit: 200 });
  const firmware = useAsk<History>(path('firmware'), { keeps: true });
  return useMemo(() => marksOf(firmware.data?.moments ?? []), [firmware.data]);
}

function Awaited() {
  return (
    <div className="chart awaited" aria-hidden="true">
      <span className="line" />
      <div className="plot" style={{ height: CHART_PX }} />
    </div>
  );
}

/** The buttons for what a hand does in a chart, so that nobody has to know it. */
function Reins({ window, change }: { window: Window; change: (by: Change) => void }) {
  const width = spanOf(window);
  return (
    <div className="reins" role="toolbar" aria-label="Time">
      <fieldset className="spans">
        <legend className="unseen">How long</legend>
        {SPANS.map(([ms, name]) => (
          <button
            key={ms}
            type="button"
            aria-pressed={Math.abs(width - ms) < 1}
            onClick={() =>
              change((before, now) =>
                before.follows
                  ? following(ms, now)
                  : { from: before.to - ms, to: before.to, follows: false },
              )
            }
          >
            {name}
          </button>
        ))}
      </fieldset>
      <span className="moves">
        <Button kind="quiet" icon="left" aria-label="Back in time" onClick={() => change(back)} />
        <Button kind="quiet" icon="plus" aria-label="Nearer" onClick={() => change(nearer)} />
        <Button kind="quiet" icon="minus" aria-label="Farther" onClick={() => change(farther)} />
        <Button
          className="follow"
          aria-pressed={window.follows}
          icon="run"
          onClick={() =>
            change((before, now) =>
              before.follows ? { ...before, follows: false } : following(spanOf(before), now),
            )
          }
        >
          Follow
        </Button>
      </span>
      <span className="num faint stretch">
        {local(window.from)} – {local(window.to).slice(11)} ({span(width)})
      </span>
    </div>
  );
}

function MarkList({ marks }: { marks: Mark[] }) {
  if (marks.length === 0) return null;
  return (
    <ul className="mark-list">
      {marks.map(mark => (
        <li key={`${mark.at} ${mark.sentence}`}>
          <span className="num">{local(mark.at)}</span> {mark.sentence}
        </li>
      ))}
    </ul>
  );
}

/** Rows of the table below the charts; whoever needs more asks in SQL. */
const ROWS_MAX = 60;

/** The same values in a table, for whoever does not see a chart, or wants the numbers. */
function AsTable({
  drawn,
  series,
  window,
  latest,
}: {
  drawn: Drawn;
  series: string[];
  window: Window;
  latest: Latest[];
}) {
  const [isOpen, setOpen] = useState(false);
  return (
    <details
      className="as-table"
      open={isOpen}
      onToggle={event => setOpen(event.currentTarget.open)}
    >
      <summary>The same as a table</summary>
      {isOpen && (
        <Scrolls tall label="Values in sight">
          {series.map(name => {
            const points = drawn.points.get(name);
            const unit = latest.find(one => one.series === name)?.unit;
            const rows = (points?.at ?? [])
              .map((at, i) => ({ at: at * 1_000, value: points?.mean[i] ?? null }))
              .filter(row => row.value !== null && row.at >= window.from && row.at <= window.to)
              .slice(-ROWS_MAX)
              .reverse();
            return (
              <table key={name} className="table tight">
                <caption>
                  {name}, the newest {rows.length}
                </caption>
                <thead>
                  <tr>
                    <th scope="col">Time</th>
                    <th scope="col" className="right">
                      Value
                    </th>
                  </tr>
                </thead>
                <tbody>
                  {rows.map(row => (
                    <tr key={row.at} data-at={row.at} data-value={row.value}>
                      <td className="num">{local(row.at)}</td>
                      <td className="num right">{measured(row.value, unit)}</td>
                    </tr>
                  ))}
                </tbody>
              </table>
            );
          })}
        </Scrolls>
      )}
    </details>
  );
}
