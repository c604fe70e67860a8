import { useState } from 'react';
import { TakesTwo } from '../approvals/waits.tsx';
import { Asked, Empty } from '../parts/asked.tsx';
import { ScopedButton } from '../parts/button.tsx';
import { Confirm } from '../parts/dialog.tsx';
import { Field } from '../parts/field.tsx';
import { Panel } from '../parts/page.tsx';
import { type Col, Table } from '../parts/table.tsx';
import { useAsk } from '../site/ask.ts';
import type { Site, Sites } from '../site/contract.ts';
import { paths } from './paths.ts';

/** Zones gathered into sites, by which people's rights are bounded. */
export function SitesPanel() {
  const sites = useAsk<Sites>(paths.sites);
  const [changes, setChanges] = useState<Site>();
  const cols: Col<Site>[] = [
    { head: 'Site', cell: site => <strong>{site.id}</strong> },
    { head: 'Zones', cell: site => site.zones.join(', ') },
    {
      head: 'Change',
      cell: site => (
        <span className="row-buttons">
          <ScopedButton scope="settings.write" kind="quiet" onClick={() => setChanges(site)}>
            Zones…
          </ScopedButton>
        </span>
      ),
    },
  ];
  const table = (rows: Site[] | undefined) => (
    <Table
      caption="Sites"
      cols={cols}
      rows={rows}
      rowKey={site => site.id}
      waiting={2}
      empty={
        <Empty title="There is no other site than this one">
          <p>Every zone that no site names belongs to the control plane’s own.</p>
        </Empty>
      }
    />
  );
  return (
    <Panel
      title="Sites"
      aside={
        <ScopedButton
          scope="settings.write"
          icon="plus"
          onClick={() => setChanges({ id: '', zones: [] })}
        >
          New site…
        </ScopedButton>
      }
    >
      <Asked of={sites} waiting={table(undefined)}>
        {answer => table(answer.sites)}
      </Asked>
      {changes && <Change site={changes} onClose={() => setChanges(undefined)} />}
    </Panel>
  );
}

function Change({ site, onClose }: { site: Site; onClose: () => void }) {
  const [id, setId] = useState(site.id);
  const [zones, setZones] = useState(site.zones.join(', '));
  const isNew = site.id === '';
  return (
    <Confirm
      title={isNew ? 'New site' : `Zones of ${site.id}`}
      verb={isNew ? 'Make the site' : 'Change the zones'}
      says={
        <p>
          These zones are of this site from now on, and whoever has a role at the site has it for
          them. <TakesTwo what="grant_roles" />
        </p>
      }
      order={() => ({
        path: paths.sites,
        body: {
          id: id.trim(),
          zones: zones
            .split(',')
            .map(zone => zone.trim())
            .filter(Boolean),
        },
      })}
      onClose={onClose}
    >
      {isNew && <Field label="Site" required spellCheck={false} value={id} onChange={setId} />}
      <Field
        label="Zones, with commas between"
        required
        spellCheck={false}
        value={zones}
        onChange={setZones}
      />
    </Confirm>
  );
}
