import { type InputHTMLAttributes, type ReactNode, useId } from 'react';

type Input = Omit<InputHTMLAttributes<HTMLInputElement>, 'onChange' | 'value'>;

export function Field({
  label,
  hint,
  value,
  onChange,
  ...rest
}: { label: string; hint?: ReactNode; value: string; onChange: (value: string) => void } & Input) {
  const id = useId();
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      <input
        id={id}
        value={value}
        onChange={event => onChange(event.target.value)}
        aria-describedby={hint ? `${id}-hint` : undefined}
        {...rest}
      />
      {hint && (
        <p className="faint" id={`${id}-hint`}>
          {hint}
        </p>
      )}
    </div>
  );
}

/** The id of what somebody makes, by which it is called from then on. */
export function NameField({
  value,
  onChange,
}: {
  value: string;
  onChange: (value: string) => void;
}) {
  return (
    <Field
      label="Name"
      required
      pattern="[a-z0-9\-]{1,64}"
      hint="Lower case letters, digits, hyphen."
      autoComplete="off"
      spellCheck={false}
      value={value}
      onChange={onChange}
    />
  );
}

/** Several lines: a question in SQL, a certificate. */
export function Text({
  label,
  hint,
  rows = 3,
  value,
  onChange,
  required,
  max,
}: {
  label: string;
  hint?: ReactNode;
  rows?: number;
  value: string;
  onChange: (value: string) => void;
  required?: boolean;
  /** Letters. */
  max?: number;
}) {
  const id = useId();
  return (
    <div className="field whole">
      <label htmlFor={id}>{label}</label>
      <textarea
        id={id}
        rows={rows}
        required={required}
        maxLength={max}
        spellCheck={false}
        value={value}
        onChange={event => onChange(event.target.value)}
        aria-describedby={hint ? `${id}-hint` : undefined}
      />
      {hint && (
        <p className="faint" id={`${id}-hint`}>
          {hint}
        </p>
      )}
    </div>
  );
}

/** One thing that is so or not. */
export function Tick({
  label,
  value,
  onChange,
}: {
  label: string;
  value: boolean;
  onChange: (value: boolean) => void;
}) {
  return (
    <label className="tick block">
      <input type="checkbox" checked={value} onChange={event => onChange(event.target.checked)} />
      {label}
    </label>
  );
}

export function Choice({
  label,
  value,
  options,
  onChange,
  className = '',
}: {
  label: string;
  value: string;
  /** What is sent, and how it reads. */
  options: [value: string, shown: string][];
  onChange: (value: string) => void;
  className?: string;
}) {
  const id = useId();
  return (
    <div className={`field ${className}`}>
      <label htmlFor={id}>{label}</label>
      <select id={id} value={value} onChange={event => onChange(event.target.value)}>
        {options.map(([sent, shown]) => (
          <option key={sent} value={sent}>
            {shown}
          </option>
        ))}
      </select>
    </div>
  );
}

/** A few values of which some are chosen. */
export function Checks<T extends string>({
  legend,
  hint,
  options,
  chosen,
  onChange,
}: {
  legend: string;
  hint?: ReactNode;
  options: { value: T; shown: ReactNode }[];
  chosen: T[];
  onChange: (chosen: T[]) => void;
}) {
  const toggle = (value: T) =>
    onChange(chosen.includes(value) ? chosen.filter(one => one !== value) : [...chosen, value]);
  return (
    <fieldset className="checks">
      <legend>{legend}</legend>
      {hint && <p className="faint">{hint}</p>}
      {options.map(({ value, shown }) => (
        <label key={value}>
          <input type="checkbox" checked={chosen.includes(value)} onChange={() => toggle(value)} />
          <span>{shown}</span>
        </label>
      ))}
    </fieldset>
  );
}
