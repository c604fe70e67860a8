import { Button } from '../parts/button.tsx';
import { Choice } from '../parts/field.tsx';
import { type Grant, type Site, USER_ROLES, type UserRole } from '../site/contract.ts';
import { roleName } from '../site/rights.ts';

const TELLS: Record<UserRole, string> = {
  viewer: 'sees everything but users',
  operator: 'runs the plant: admits devices, cuts off, stops, answers alerts',
  releaser: 'says what devices run',
  security_officer: 'judges identities: cuts off and lets back',
  administrator: 'makes users and settings; rolls nothing out',
};

/** Roles, each at one site or at every. */
export function GrantFields({
  grants,
  sites,
  onChange,
}: {
  grants: Grant[];
  sites: Site[];
  onChange: (grants: Grant[]) => void;
}) {
  const put = (at: number, grant: Grant) =>
    onChange(grants.map((one, i) => (i === at ? grant : one)));
  return (
    <fieldset className="grants">
      <legend>Roles</legend>
      {grants.map((grant, at) => (
        // A grant is known by its place while it is edited.
        <div key={at} className="grant">
          <Choice
            label="Role"
            value={grant.role}
            options={USER_ROLES.map((role): [string, string] => [
              role,
              `${roleName(role)} – ${TELLS[role]}`,
            ])}
            onChange={role => put(at, { ...grant, role: role as UserRole })}
          />
          <Choice
            label="Where"
            value={grant.site ?? ''}
            options={[
              ['', 'every site'],
              ...sites.map((site): [string, string] => [site.id, site.id]),
            ]}
            onChange={site => put(at, site ? { role: grant.role, site } : { role: grant.role })}
          />
          <Button
            kind="quiet"
            icon="bad"
            aria-label={`Take away ${roleName(grant.role)}`}
            onClick={() => onChange(grants.filter((_, i) => i !== at))}
          />
        </div>
      ))}
      <Button icon="plus" onClick={() => onChange([...grants, { role: 'viewer' }])}>
        Another role
      </Button>
    </fieldset>
  );
}
