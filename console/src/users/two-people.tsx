import { useState } from 'react';
import { Asked, Lines } from '../parts/asked.tsx';
import { ScopedButton } from '../parts/button.tsx';
import { Confirm } from '../parts/dialog.tsx';
import { Checks } from '../parts/field.tsx';
import { Icon } from '../parts/icon.tsx';
import { Panel } from '../parts/page.tsx';
import { useAsk } from '../site/ask.ts';
import { type TwoPeople, WIDENINGS, type Widening } from '../site/contract.ts';
import { paths } from './paths.ts';

const TELLS: Record<Widening, string> = {
  emergency_rollout: 'A rollout without a canary',
  quarantine_release: 'Letting a quarantined device back',
  grant_roles: 'Giving a user more roles',
  trust_keys: 'Trusting other keys',
  grant_policy: 'A policy that permits more',
};

/** What one person cannot do alone. */
export function TwoPeoplePanel() {
  const settings = useAsk<TwoPeople>(paths.twoPeople);
  const [changes, setChanges] = useState(false);
  return (
    <Panel
      title="Needs two people"
      aside={
        <ScopedButton scope="settings.write" onClick={() => setChanges(true)}>
          Change…
        </ScopedButton>
      }
    >
      <Asked of={settings} waiting={<Lines n={5} />}>
        {({ needed_for }) => (
          <>
            <ul className="ticks">
              {WIDENINGS.map(widening => {
                const needs = needed_for.includes(widening);
                return (
                  <li key={widening} className={needs ? undefined : 'faint'}>
                    <Icon name={needs ? 'ok' : 'minus'} />
                    {TELLS[widening]}: {needs ? 'two people' : 'one'}
                  </li>
                );
              })}
            </ul>
            {changes && <Change before={needed_for} onClose={() => setChanges(false)} />}
          </>
        )}
      </Asked>
    </Panel>
  );
}

function Change({ before, onClose }: { before: Widening[]; onClose: () => void }) {
  const [chosen, setChosen] = useState(before);
  return (
    <Confirm
      title="What needs two people"
      verb="Change it"
      says={
        <p>
          What narrows never does. To ask for fewer is itself something that takes a second person.
        </p>
      }
      order={() => ({ path: paths.twoPeople, body: { needed_for: chosen } })}
      onClose={onClose}
    >
      <Checks
        legend="Two people for"
        options={WIDENINGS.map(widening => ({ value: widening, shown: TELLS[widening] }))}
        chosen={chosen}
        onChange={setChosen}
      />
    </Confirm>
  );
}
