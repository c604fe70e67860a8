/**
 * One chart over time: lines with what lies between lowest and highest, limits across, marks down. The only file that
 * knows uPlot; it is loaded when the first chart is shown.
 */

import { type KeyboardEvent, useEffect, useId, useRef } from 'react';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { onColours } from '../shell/theme.ts';
import { measured, value as shownValue, size } from '../words/number.ts';
import { local } from '../words/time.ts';
import { Hand } from './hand.ts';
import type { Mark } from './mark.ts';
import type { Window } from './window.ts';

export interface Line {
  name: string;
  values: (number | null)[];
  /** Drawn in the first or second colour; the second is dashed too, for whoever sees no difference. */
  style: 'first' | 'second';
  low?: (number | null)[];
  high?: (number | null)[];
}

export interface ChartProps {
  title: string;
  unit?: string | undefined;
  /** In seconds, ascending. */
  at: number[];
  lines: Line[];
  /** Values that must not be passed. */
  limits?: { value: number; label: string }[];
  marks?: Mark[];
  window: Window;
  onWindow?: (change: (window: Window, now: number) => Window) => void;
  height?: number;
  /** Charts of one group show the same moment. */
  group?: string;
  /** Points as well as lines: for few. */
  dots?: boolean;
}

const GAP_PX = 8;

export default function Chart(props: ChartProps) {
  const { title, unit, lines, window, onWindow, height = 150, marks = [], limits = [] } = props;
  const box = useRef<HTMLDivElement>(null);
  const readout = useRef<HTMLSpanElement>(null);
  const drawn = useRef<Drawn | undefined>(undefined);
  const latest = useRef(props);
  latest.current = props;
  const help = useId();

  // One plot for one set of lines; values, window and marks change within it.
  const shape = lines.map(line => `${line.name}:${line.style}:${line.low ? 'band' : ''}`).join('|');
  // What changes within a plot is set below.
  useEffect(() => {
    if (!box.current || !readout.current) return;
    const make = () => {
      drawn.current?.end();
      if (box.current && readout.current)
        drawn.current = new Drawn(box.current, readout.current, latest);
    };
    make();
    const unwatch = onColours(make);
    return () => {
      unwatch();
      drawn.current?.end();
      drawn.current = undefined;
    };
  }, [shape, height, unit]);
  useEffect(() => drawn.current?.show());

  const press = (event: KeyboardEvent) => {
    if (!onWindow) return;
    const change = Hand.key(event.key);
    if (!change) return;
    event.preventDefault();
    onWindow(change);
  };
  const newest = lines.map(line => line.values.findLast(v => v !== null) ?? null);
  const summary = lines.map((line, i) => `${line.name}: ${measured(newest[i], unit)}`).join('; ');
  return (
    <figure className="chart">
      <figcaption>
        <span className="name">{title}</span>
        <span className="num readout" ref={readout} data-newest={summary} />
      </figcaption>
      {/* No element is a chart that keys move. */}
      <div
        ref={box}
        className={onWindow ? 'plot movable' : 'plot'}
        style={{ height }}
        role="group"
        tabIndex={onWindow ? 0 : undefined}
        aria-label={`Chart of ${title} from ${local(window.from)} to ${local(window.to)}. Newest: ${summary || 'none'}`}
        aria-describedby={onWindow ? help : undefined}
        onKeyDown={press}
      />
      {onWindow && (
        <span id={help} hidden>
          Arrow keys move in time, plus and minus zoom, End follows what is new.
        </span>
      )}
      {(marks.length > 0 || limits.length > 0) && (
        <ul className="unseen">
          {limits.map(limit => (
            <li key={limit.label}>{limit.label}</li>
          ))}
        </ul>
      )}
    </figure>
  );
}

/** A plot on its canvas, with what lies over it. */
class Drawn {
  private readonly plot: uPlot;
  private readonly watch: ResizeObserver;
  private readonly unhand: (() => void) | undefined;
  private marks: HTMLElement[] = [];

  constructor(
    box: HTMLElement,
    private readonly readout: HTMLElement,
    private readonly latest: { current: ChartProps },
  ) {
    const props = latest.current;
    const colours = coloursOf(box);
    this.plot = new uPlot(
      optionsOf(props, colours, box.clientWidth, {
        moved: plot => this.read(plot),
        drawn: plot => this.overlay(plot),
        limits: plot => drawLimits(plot, this.latest.current.limits ?? [], colours),
      }),
      dataOf(props),
      box,
    );
    this.watch = new ResizeObserver(() => {
      if (box.clientWidth > 0)
        this.plot.setSize({ width: box.clientWidth, height: props.height ?? 150 });
    });
    this.watch.observe(box);
    this.unhand = props.onWindow
      ? Hand.on(this.plot.over, change => this.latest.current.onWindow?.(change))
      : undefined;
    this.show();
  }

  show() {
    const { window } = this.latest.current;
    this.plot.batch(() => {
      this.plot.setData(dataOf(this.latest.current), false);
      // Both scales: the values in sight decide how high the chart is.
      this.plot.setScale('x', { min: window.from / 1_000, max: window.to / 1_000 });
    });
    this.read(this.plot);
  }

  end() {
    this.watch.disconnect();
    this.unhand?.();
    this.plot.destroy();
  }

  private read(plot: uPlot) {
    const { lines, unit, at } = this.latest.current;
    const index = plot.cursor.idx;
    const isAt = typeof index === 'number' && (plot.cursor.left ?? -1) >= 0;
    const said = lines.map(line => {
      const v = isAt ? line.values[index] : line.values.findLast(one => one !== null);
      return lines.length > 1 ? `${line.name} ${measured(v, unit)}` : measured(v, unit);
    });
    const time = isAt ? at[index] : undefined;
    this.readout.textContent =
      said.join(' · ') + (time === undefined ? '' : ` at ${local(time * 1_000).slice(11)}`);
  }

  /** Marks stand over the canvas as text, so that they can be read, selected and found. */
  private overlay(plot: uPlot) {
    for (const mark of this.marks) mark.remove();
    const { marks = [], window } = this.latest.current;
    let free = -Infinity;
    this.marks = marks
      .filter(mark => mark.at >= window.from && mark.at <= window.to)
      .map(mark => {
        const left = plot.valToPos(mark.at / 1_000, 'x');
        const line = document.createElement('div');
        line.className = `over-mark ${mark.kind}`;
        line.style.left = `${left}px`;
        line.title = `${mark.sentence}\n${local(mark.at)}`;
        line.dataset.at = String(mark.at);
        const label = document.createElement('span');
        label.textContent = mark.label;
        line.append(label);
        plot.over.append(line);
        // A label that would lie over the one before it is left to its title.
        if (left < free) label.hidden = true;
        else free = left + label.offsetWidth + GAP_PX;
        if (left + label.offsetWidth > plot.over.clientWidth) line.classList.add('to-the-left');
        return line;
      });
  }
}

interface Colours {
  first: string;
  second: string;
  band: string;
  ink: string;
  grid: string;
  limit: string;
  font: string;
}

function coloursOf(box: HTMLElement): Colours {
  const style = getComputedStyle(box);
  const of = (name: string) => style.getPropertyValue(name).trim();
  return {
    first: of('--chart-first'),
    second: of('--chart-second'),
    band: of('--chart-band'),
    ink: of('--ink-soft'),
    grid: of('--line'),
    limit: of('--bad'),
    font: `11px ${style.fontFamily}`,
  };
}

function dataOf({ at, lines }: ChartProps): uPlot.AlignedData {
  const columns: (number | null)[][] = [];
  for (const line of lines) {
    if (line.low && line.high) columns.push(line.low, line.high);
    columns.push(line.values);
  }
  return [at, ...columns] as uPlot.AlignedData;
}

interface Hooks {
  moved: (plot: uPlot) => void;
  drawn: (plot: uPlot) => void;
  limits: (plot: uPlot) => void;
}

function optionsOf(
  props: ChartProps,
  colours: Colours,
  width: number,
  hooks: Hooks,
): uPlot.Options {
  const { lines, unit, height = 150, group, dots = false } = props;
  const series: uPlot.Series[] = [{}];
  const bands: uPlot.Band[] = [];
  for (const line of lines) {
    const stroke = colours[line.style];
    if (line.low && line.high) {
      const low = series.length;
      const edge: uPlot.Series = { width: 0, points: { show: false } };
      series.push({ ...edge, stroke: 'transparent' }, { ...edge, stroke: 'transparent' });
      bands.push({ series: [low + 1, low], fill: colours.band });
    }
    series.push({
      label: line.name,
      stroke,
      width: 1.5,
      ...(line.style === 'second' ? { dash: [5, 4] } : {}),
      points: dots ? { show: true, size: 5, fill: stroke } : { show: isSparse, size: 4 },
    });
  }
  const axis: uPlot.Axis = {
    stroke: colours.ink,
    font: colours.font,
    grid: { stroke: colours.grid, width: 1 },
    ticks: { stroke: colours.grid, width: 1, size: 4 },
  };
  return {
    width: Math.max(width, 50),
    height,
    series,
    bands,
    legend: { show: false },
    cursor: {
      drag: { x: false, y: false, setScale: false },
      points: { size: 6 },
      ...(group ? { sync: { key: group } } : {}),
    },
    scales: {
      x: { time: true, auto: false },
      y: { range: (plot, min, max) => heightOf(plot, min, max, props) },
    },
    axes: [
      { ...axis, size: 26, space: 70, values: timesOf },
      { ...axis, size: 64, values: (_, ticks) => ticks.map(tick => tickOf(tick, unit)) },
    ],
    hooks: {
      setCursor: [hooks.moved],
      drawAxes: [hooks.limits],
      draw: [hooks.drawn],
    },
  };
}

/** A line of few points is not seen without them. */
function isSparse(plot: uPlot): boolean {
  return (plot.data[0]?.length ?? 0) < 40;
}

/** From the lowest to the highest in sight, limits too, with some air; around a value that never moves. */
function heightOf(
  _: uPlot,
  min: number | null,
  max: number | null,
  { limits = [] }: ChartProps,
): [number, number] {
  const all = [min, max, ...limits.map(limit => limit.value)].filter(v => typeof v === 'number');
  if (all.length === 0) return [0, 1];
  const low = Math.min(...all);
  const high = Math.max(...all);
  const air = high > low ? (high - low) * 0.08 : Math.abs(high) * 0.1 || 1;
  return [low >= 0 && low - air < 0 ? 0 : low - air, high + air];
}

function tickOf(tick: number, unit: string | undefined): string {
  if (unit === 'B') return size(tick);
  if (unit === 'B/s') return `${size(tick)}/s`;
  return shownValue(tick);
}

/** Hours and minutes; seconds where steps are shorter; the day where it changes. 24 hours, as everywhere in a plant. */
function timesOf(_: uPlot, ticks: number[], _axis: number, _space: number, step: number): string[] {
  let before = '';
  return ticks.map(tick => {
    const text = local(tick * 1_000);
    const day = text.slice(5, 10);
    const isNew = day !== before && before !== '';
    before = day;
    if (step >= 86_400) return day;
    return isNew ? `${day} ${text.slice(11, 16)}` : text.slice(11, step < 60 ? 19 : 16);
  });
}

function drawLimits(plot: uPlot, limits: { value: number; label: string }[], colours: Colours) {
  const { ctx, bbox } = plot;
  for (const limit of limits) {
    const y = plot.valToPos(limit.value, 'y', true);
    ctx.save();
    ctx.strokeStyle = colours.limit;
    ctx.fillStyle = colours.limit;
    ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
    ctx.lineWidth = devicePixelRatio;
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    ctx.font = colours.font.replace('11px', `${11 * devicePixelRatio}px`);
    ctx.textAlign = 'right';
    ctx.fillText(
      limit.label,
      bbox.left + bbox.width - 4,
      y + (y < bbox.top + 20 ? 14 : -4) * devicePixelRatio,
    );
    ctx.restore();
  }
}
