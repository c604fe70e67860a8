import { useDeferredValue, useEffect, useMemo, useState } from 'react';
import { Cohorts } from '../fleet/cohorts.tsx';
import { DeviceGrid } from '../fleet/device-grid.tsx';
import { filterOf } from '../fleet/filter.ts';
import { useFleet } from '../fleet/use-fleet.ts';
import { Empty, Lines } from '../parts/asked.tsx';
import { Page } from '../parts/page.tsx';
import { ProblemNote } from '../parts/problem.tsx';
import { usePlace } from '../route.tsx';
import { counted } from '../words/number.ts';

/** Typing asks when it pauses for so long. */
const PAUSE_MS = 150;

/** Every device of the site: searched and filtered by control, and shown as far as one looks. */
export function FleetPage() {
  const { query } = usePlace();
  const text = usePaused(query.toString());
  const filter = useMemo(() => filterOf(new URLSearchParams(text)), [text]);
  const fleet = useFleet(useDeferredValue(filter));
  const isFiltered = Object.keys(filter).length > 0;
  const total = fleet.total;
  return (
    <Page
      title="Fleet"
      className="fleet"
      lead={
        <span role="status">
          {total === undefined
            ? '\u00a0'
            : `${counted(total, 'device')}${isFiltered ? ' of this kind' : ''}`}
        </span>
      }
    >
      <Cohorts filter={filter} />
      <div className="devices">
        {fleet.error && <ProblemNote error={fleet.error} again={fleet.again} />}
        {total === undefined && !fleet.error && (
          <div aria-busy="true">
            <Lines n={20} tall />
          </div>
        )}
        {total === 0 && (
          <Empty title={isFiltered ? 'No device is like this' : 'No device is listed yet'}>
            {isFiltered ? (
              <p>Search for less, or clear the filter.</p>
            ) : (
              <p>
                A device enrols once its serial number is on the ownership list:{' '}
                <code>plimsoll enroll</code>.
              </p>
            )}
          </Empty>
        )}
        {total !== undefined && total > 0 && <DeviceGrid fleet={fleet} filterKey={text} />}
      </div>
    </Page>
  );
}

function usePaused(text: string): string {
  const [paused, setPaused] = useState(text);
  useEffect(() => {
    const timer = setTimeout(() => setPaused(text), PAUSE_MS);
    return () => clearTimeout(timer);
  }, [text]);
  return paused;
}
