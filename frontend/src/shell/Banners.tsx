import { useReview } from "../state/store";
import { Button } from "../ui/Button";

/** What needs attention and stays until it is dealt with: a service that is away, clicks that met others'. */
export function Banners() {
  const lost = useReview((s) => s.lost);
  const nPending = useReview((s) => s.nPending);
  const conflicts = useReview((s) => s.conflicts);
  const { open, sync, dismissConflicts } = useReview.getState();
  return (
    <>
      {lost !== null && (
        <div className="banner" role="alert">
          <p>
            {lost}{" "}
            {nPending > 0 && `${nPending.toLocaleString("en")} of your clicks are kept here and sent later.`}
          </p>
          <Button onClick={() => void sync()}>Try now</Button>
        </div>
      )}
      {conflicts.length > 0 && (
        <section className="banner" aria-label="Labels that somebody else changed too">
          <ul className="banner-list">
            {conflicts.slice(-5).map(({ id, row, words }) => (
              <li key={id}>
                {words}{" "}
                <Button
                  look="quiet"
                  onClick={() => {
                    open(row);
                  }}
                >
                  See cell
                </Button>
              </li>
            ))}
            {conflicts.length > 5 && <li className="muted">and {conflicts.length - 5} before.</li>}
          </ul>
          <Button onClick={dismissConflicts}>Dismiss</Button>
        </section>
      )}
    </>
  );
}
