import { useState } from 'react';
import { Lines } from '../parts/asked.tsx';
import { Button } from '../parts/button.tsx';
import { Choice } from '../parts/field.tsx';
import { useQueryText } from '../route.tsx';
import { useMedia } from '../shell/media.ts';
import { useAsk } from '../site/ask.ts';
import type { Summary, Tally } from '../site/contract.ts';
import { count, percent } from '../words/number.ts';
import { FILTERS, type Filter, summaryPath } from './filter.ts';

/** How many values of one kind are shown before somebody asks for all. */
const VALUES_SHOWN = 6;

/** How many there are of each, of those that the filter lets through; each is a filter itself. */
export function Cohorts({ filter }: { filter: Filter }) {
  const summary = useAsk<Summary>(summaryPath(filter), { keeps: true });
  const isNarrow = useMedia('(max-width: 760px)');
  const set = useQueryText();
  const chosen = FILTERS.filter(name => name !== 'search' && filter[name]);
  return (
    <details className="cohorts" open={!isNarrow}>
      <summary>Filter{chosen.length > 0 && <span className="tally">{chosen.length}</span>}</summary>
      <div className="chosen">
        {chosen.length > 0 && (
          <Button
            kind="quiet"
            icon="bad"
            onClick={() => set(Object.fromEntries(FILTERS.map(name => [name, undefined])))}
          >
            Clear the filter
          </Button>
        )}
      </div>
      {summary.error && <p className="faint">How many there are of each could not be had.</p>}
      {summary.isPending && <Lines n={18} />}
      {summary.data && <Tallies of={summary.data} filter={filter} />}
      <Choice
        label="Not heard for"
        value={filter.silent_s ?? ''}
        options={[
          ['', 'any time'],
          ['300', '5 minutes or longer'],
          ['3600', 'an hour or longer'],
          ['86400', 'a day or longer'],
          ['604800', 'a week or longer'],
        ]}
        onChange={silent_s => set({ silent_s })}
      />
    </details>
  );
}

function Tallies({ of: tallies, filter }: { of: Summary; filter: Filter }) {
  return (
    <>
      <Cohort title="Standing" name="standing" of={tallies.standings} filter={filter} />
      <Cohort title="Runs" name="version" of={tallies.versions} filter={filter} />
      <Cohort title="Group" name="group" of={tallies.groups} filter={filter} />
      <Cohort title="Zone" name="zone" of={tallies.zones} filter={filter} />
      <Cohort title="Site" name="site" of={tallies.sites} filter={filter} />
      <Cohort title="Gateway" name="gateway" of={tallies.gateways} filter={filter} />
      <Cohort title="Role" name="role" of={tallies.roles} filter={filter} />
    </>
  );
}

function Cohort({
  title,
  name,
  of,
  filter,
}: {
  title: string;
  name: keyof Filter;
  of: Tally;
  filter: Filter;
}) {
  const set = useQueryText();
  const [all, setAll] = useState(false);
  const chosen = filter[name];
  const values = Object.entries(of).sort(([a, n], [b, m]) => m - n || a.localeCompare(b));
  if (chosen && of[chosen] === undefined) values.unshift([chosen, 0]);
  // One value that all have tells nothing, unless it is the one that was chosen.
  if (values.length < 2 && !chosen) return null;
  const whole = values.reduce((sum, [, n]) => sum + n, 0);
  const shown = all ? values : values.slice(0, VALUES_SHOWN);
  return (
    <fieldset className="cohort">
      <legend>{title}</legend>
      <ul>
        {shown.map(([value, n]) => (
          <li key={value}>
            <button
              type="button"
              aria-pressed={chosen === value}
              onClick={() => set({ [name]: chosen === value ? undefined : value })}
            >
              <span className="bar" style={{ width: `${percent(n, whole)}%` }} aria-hidden="true" />
              <span className="value">{value || 'none'}</span>
              <span className="num">{count(n)}</span>
            </button>
          </li>
        ))}
      </ul>
      {values.length > VALUES_SHOWN && (
        <Button kind="quiet" aria-expanded={all} onClick={() => setAll(!all)}>
          {all ? 'Fewer' : `All ${count(values.length)}`}
        </Button>
      )}
    </fieldset>
  );
}
