import type { ReactNode } from 'react';

/** What may be wider or higher than its place. It scrolls, and can be reached by keyboard (WCAG 2.1.1). */
export function Scrolls({
  label,
  tall = false,
  children,
}: {
  label: string;
  tall?: boolean;
  children: ReactNode;
}) {
  return (
    // A fieldset is for what one fills in.
    // It scrolls.
    <div className={tall ? 'scrolls tall' : 'scrolls'} role="group" aria-label={label} tabIndex={0}>
      {children}
    </div>
  );
}
