import { useVirtualizer } from '@tanstack/react-virtual';
import { type KeyboardEvent, type MouseEvent, useEffect, useRef, useState } from 'react';
import { StandingBadge } from '../parts/badge.tsx';
import { Icon } from '../parts/icon.tsx';
import { go, Link, pathTo } from '../route.tsx';
import { useMedia } from '../shell/media.ts';
import type { DeviceLine } from '../site/contract.ts';
import { Ago } from '../words/when.tsx';
import type { Fleet } from './use-fleet.ts';

const HEADS = ['Device', 'Standing', 'Runs', 'Group', 'Zone', 'Gateway', 'Heard'];
/** Of a row: one line, or two on a narrow screen. The style sheet says the same. */
const ROW_PX = { wide: 34, narrow: 58 };

/**
 * The fleet as a grid of which only what is in sight exists. One row is in the order of Tab; arrows go from row to row
 * (WAI-ARIA, grid pattern), and a screen reader is told the place of each among all.
 */
export function DeviceGrid({ fleet, filterKey }: { fleet: Fleet; filterKey: string }) {
  const box = useRef<HTMLDivElement>(null);
  const isNarrow = useMedia('(max-width: 760px)');
  const [kept, setActive] = useState(0);
  const takesFocus = useRef(false);
  const total = fleet.total ?? 0;
  const rowPx = isNarrow ? ROW_PX.narrow : ROW_PX.wide;
  const rows = useVirtualizer({
    count: total,
    getScrollElement: () => box.current,
    estimateSize: () => rowPx,
    overscan: 12,
  });
  // Another width is another height of every row.
  useEffect(() => rows.measure(), [rowPx]);
  // Another filter is another table, read from its top.
  useEffect(() => {
    setActive(0);
    box.current?.scrollTo(0, 0);
  }, [filterKey]);

  const shown = rows.getVirtualItems();
  const first = shown[0]?.index ?? 0;
  const last = shown.at(-1)?.index ?? 0;
  // Whoever scrolled away from the row that had the order of Tab comes in at the first that is there.
  const active = kept >= first && kept <= last ? kept : first;
  const { look } = fleet;
  useEffect(() => look({ first, last }), [look, first, last]);

  useEffect(() => {
    if (!takesFocus.current) return;
    const row = box.current?.querySelector<HTMLElement>(`[data-at="${kept}"]`);
    if (!row) return;
    takesFocus.current = false;
    row.focus({ preventScroll: true });
  });

  const move = (event: KeyboardEvent) => {
    const page = Math.max(1, Math.floor((box.current?.clientHeight ?? rowPx) / rowPx) - 2);
    const steps: Record<string, number> = {
      ArrowDown: active + 1,
      ArrowUp: active - 1,
      PageDown: active + page,
      PageUp: active - page,
      Home: 0,
      End: total - 1,
    };
    const step = steps[event.key];
    if (step !== undefined) {
      event.preventDefault();
      const to = Math.max(0, Math.min(total - 1, step));
      takesFocus.current = true;
      setActive(to);
      rows.scrollToIndex(to, { align: 'auto' });
    } else if (event.key === 'Enter') {
      const line = fleet.line(active);
      if (line) go(pathTo('devices', line.id));
    }
  };
  return (
    // A table element cannot hold rows that are placed one by one.
    <div
      ref={box}
      className={fleet.isBehind ? 'grid behind' : 'grid'}
      role="grid"
      aria-label="Devices"
      aria-rowcount={total + 1}
      aria-colcount={HEADS.length}
      aria-busy={fleet.isBehind}
      onKeyDown={move}
    >
      {/* Nothing is done with a heading. */}
      <div className="row heads" role="row" aria-rowindex={1}>
        {HEADS.map(head => (
          <div key={head} role="columnheader">
            {head}
          </div>
        ))}
      </div>
      <div className="rows" role="rowgroup" style={{ height: rows.getTotalSize() }}>
        {shown.map(row => (
          <Row
            key={row.index}
            at={row.index}
            top={row.start}
            line={fleet.line(row.index)}
            isActive={row.index === active}
            onFocus={() => setActive(row.index)}
          />
        ))}
      </div>
    </div>
  );
}

function Row({
  at,
  top,
  line,
  isActive,
  onFocus,
}: {
  at: number;
  top: number;
  line: DeviceLine | undefined;
  isActive: boolean;
  onFocus: () => void;
}) {
  const open = (event: MouseEvent) => {
    // Whoever marks text to copy it does not want to leave.
    if (!line || event.defaultPrevented || getSelection()?.toString()) return;
    go(pathTo('devices', line.id));
  };
  return (
    // A table element cannot hold rows that are placed one by one.
    // The grid has the keys of its rows.
    <div
      className="row"
      role="row"
      aria-rowindex={at + 2}
      data-at={at}
      tabIndex={isActive ? 0 : -1}
      style={{ transform: `translateY(${top}px)` }}
      onFocus={onFocus}
      onClick={open}
    >
      {line ? <Cells line={line} /> : <Awaited />}
    </div>
  );
}

/* The row takes the focus for its cells. */
function Cells({ line }: { line: DeviceLine }) {
  return (
    <>
      <div role="gridcell" className="id">
        <Link to={pathTo('devices', line.id)} tabIndex={-1}>
          {line.id}
        </Link>
        {line.role === 'gateway' && (
          <span className="is-gateway" title="gateway">
            <Icon name="gateway" />
            <span className="unseen">gateway</span>
          </span>
        )}
      </div>
      <div role="gridcell" className="standing">
        <StandingBadge standing={line.standing} />
      </div>
      <div role="gridcell" className="runs num">
        {line.product ? (
          <>
            {line.product} <strong>{line.version}</strong>
          </>
        ) : (
          <span className="faint">–</span>
        )}
      </div>
      <div role="gridcell" className="group">
        {line.group}
      </div>
      <div role="gridcell" className="zone">
        {line.site === line.zone ? line.zone : `${line.site} / ${line.zone}`}
      </div>
      <div role="gridcell" className="gateway">
        {line.gateway ?? <span className="faint">–</span>}
      </div>
      <div role="gridcell" className="seen">
        <Ago ms={line.seen_at_ms} />
      </div>
    </>
  );
}

function Awaited() {
  return (
    <>
      {HEADS.map(head => (
        <div key={head} role="gridcell" aria-label="Loading">
          <span className="line" />
        </div>
      ))}
    </>
  );
}
