import { useState } from 'react';
import { WIDENING_TELLS } from '../approvals/outcome.ts';
import { asksForFewer, settled } from '../approvals/second.ts';
import { Asked, Lines } from '../parts/asked.tsx';
import { ScopedButton } from '../parts/button.tsx';
import { Confirm } from '../parts/dialog.tsx';
import { Checks } from '../parts/field.tsx';
import { Icon } from '../parts/icon.tsx';
import { Panel } from '../parts/page.tsx';
import { useAsk } from '../site/ask.ts';
import { type TwoPeople, WIDENINGS, type Widening } from '../site/contract.ts';
import { paths } from './paths.ts';

const MEANS: Record<Widening, string> = {
  emergency_rollout: 'its first wave takes more than half of its devices, and more than one',
  quarantine_release: 'what it says counts again',
  grant_roles:
    'a new user, more roles, another’s password, a disabled user, the zones of a site, this setting',
};

/** What one person cannot do alone. */
export function TwoPeoplePanel() {
  const settings = useAsk<TwoPeople>(paths.twoPeople);
  const [changes, setChanges] = useState(false);
  return (
    <Panel
      title="Takes two people"
      aside={
        <ScopedButton scope="settings.write" onClick={() => setChanges(true)}>
          Change…
        </ScopedButton>
      }
    >
      <Asked of={settings} waiting={<Lines n={3} />}>
        {({ needed_for }) => (
          <>
            <ul className="ticks">
              {WIDENINGS.map(widening => {
                const needs = needed_for.includes(widening);
                return (
                  <li key={widening}>
                    <Icon name={needs ? 'ok' : 'minus'} />
                    <span>
                      {WIDENING_TELLS[widening]}: {needs ? <strong>two people</strong> : 'one'}
                    </span>
                  </li>
                );
              })}
            </ul>
            {changes && <Change now={needed_for} onClose={() => setChanges(false)} />}
          </>
        )}
      </Asked>
    </Panel>
  );
}

function Change({ now, onClose }: { now: Widening[]; onClose: () => void }) {
  const [chosen, setChosen] = useState(now);
  return (
    <Confirm
      title="What takes two people"
      verb={asksForFewer(now, chosen) ? 'Ask for it' : 'Change it'}
      says={
        <p>
          What narrows never does.{' '}
          {asksForFewer(now, chosen)
            ? 'To ask for fewer takes a second person: a security officer decides.'
            : 'Somebody asks, and a second person of another role says yes within 24 hours.'}
        </p>
      }
      order={() => ({ path: paths.twoPeople, body: { needed_for: chosen } })}
      onClose={onClose}
    >
      <Checks
        legend="Two people for"
        hint="Where anything takes two, letting people do more does: whoever makes users alone makes the second person himself."
        options={WIDENINGS.map(value => ({
          value,
          shown: (
            <>
              {WIDENING_TELLS[value]}: <span className="faint">{MEANS[value]}</span>
            </>
          ),
        }))}
        chosen={chosen}
        onChange={next => setChosen(settled(chosen, next))}
      />
    </Confirm>
  );
}
