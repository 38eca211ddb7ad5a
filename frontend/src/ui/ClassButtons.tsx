import { useReview } from "../state/store";
import { ClassBadge } from "./ClassBadge";

interface Props {
  /** Code of the present label, -1 without; undefined where the cells differ. */
  current?: number | undefined;
  onPick: (className: string | null) => void;
  disabled?: boolean;
}

/** One button per class, and one that takes the label away. */
export function ClassButtons({ current, onPick, disabled = false }: Props) {
  const names = useReview((s) => s.study?.class_names ?? NO_NAMES);
  return (
    <div className="class-buttons" role="group" aria-label="Set the class">
      {names.map((name, code) => (
        <button
          key={name}
          type="button"
          className="button class-button"
          aria-pressed={current === code}
          aria-keyshortcuts={code < 9 ? String(code + 1) : undefined}
          disabled={disabled}
          onClick={() => {
            onPick(name);
          }}
        >
          <ClassBadge label={code} />
          {name}
        </button>
      ))}
      <button
        type="button"
        className="button class-button"
        aria-pressed={current === -1}
        aria-keyshortcuts="0"
        disabled={disabled}
        onClick={() => {
          onPick(null);
        }}
      >
        <span className="badge badge-none" aria-hidden="true">
          0
        </span>
        no label
      </button>
    </div>
  );
}

const NO_NAMES: string[] = [];
