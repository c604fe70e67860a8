import { type ReactNode, useEffect, useRef } from 'react';
import { useMe } from '../site/me.tsx';

/** The page that was shown last; none: the console has only been opened, and the focus is the browser's to place. */
let before: string | undefined;

/** A page's head. The heading takes the focus when one comes to it, so that a screen reader says where one is. */
export function Page({
  title,
  lead,
  actions,
  className = '',
  children,
}: {
  title: string;
  lead?: ReactNode;
  actions?: ReactNode;
  className?: string;
  children: ReactNode;
}) {
  const heading = useRef<HTMLHeadingElement>(null);
  const { site } = useMe();
  useEffect(() => {
    document.title = `${title} – ${site} – Plimsoll`;
  }, [title, site]);
  useEffect(() => {
    if (before !== undefined && before !== title) heading.current?.focus({ preventScroll: true });
    before = title;
  }, [title]);
  return (
    <div className={`page ${className}`}>
      <div className="head">
        <div>
          <h1 ref={heading} tabIndex={-1}>
            {title}
          </h1>
          {lead && <div className="lead">{lead}</div>}
        </div>
        {actions && <div className="actions">{actions}</div>}
      </div>
      {children}
    </div>
  );
}

export function Panel({
  title,
  aside,
  children,
  className = '',
}: {
  title: string;
  aside?: ReactNode;
  children: ReactNode;
  className?: string;
}) {
  return (
    <section className={`panel ${className}`} aria-label={title}>
      <div className="panel-head">
        <h2>{title}</h2>
        {aside}
      </div>
      {children}
    </section>
  );
}

/** Names and what they are, for few and short ones. */
export function Facts({ of }: { of: [name: string, what: ReactNode][] }) {
  return (
    <dl className="facts">
      {of.map(([name, what]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{what}</dd>
        </div>
      ))}
    </dl>
  );
}
