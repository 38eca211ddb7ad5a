import { useId, useState } from "react";
import { exportAddress } from "../api/client";
import { readSettings, type Settings } from "../state/settings";
import { useReview } from "../state/store";
import { Button } from "../ui/Button";
import { Dialog } from "../ui/Dialog";
import { applyTheme } from "./theme";

const THEMES: { theme: Settings["theme"]; title: string }[] = [
  { theme: "system", title: "As the system" },
  { theme: "light", title: "Light" },
  { theme: "dark", title: "Dark" },
];

/** Who reads, how the page looks, and how corrections leave it. */
export function MoreDialog({ onClose, onHelp }: { onClose: () => void; onHelp: () => void }) {
  const hasFields = useReview((s) => s.study?.has_fields ?? false);
  return (
    <Dialog title="More" onClose={onClose}>
      <ReaderName />
      <Switches onHelp={onHelp} />
      <ThemeChoice />
      <section className="more-part">
        <h3>Corrected outlines for other programs</h3>
        {hasFields ? (
          <p className="more-row">
            <a className="button" href={exportAddress("geojson")} download>
              GeoJSON (QuPath)
            </a>
            <a className="button" href={exportAddress("roi")} download>
              ROI (ImageJ)
            </a>
          </p>
        ) : (
          <p className="muted">
            This study was made from single pictures: it has no outline files to send back.
          </p>
        )}
      </section>
    </Dialog>
  );
}

/** The switches of the header, which narrow screens have no room for. */
function Switches({ onHelp }: { onHelp: () => void }) {
  const outlined = useReview((s) => s.outlined);
  const blind = useReview((s) => s.blind);
  const { setOutlined, setBlind } = useReview.getState();
  return (
    <section className="more-part">
      <h3>On the page</h3>
      <div className="more-row">
        <Button
          pressed={outlined}
          onClick={() => {
            setOutlined(!outlined);
          }}
        >
          Outlines
        </Button>
        <Button
          pressed={blind}
          onClick={() => {
            setBlind(!blind);
          }}
        >
          Models hidden
        </Button>
        <Button onClick={onHelp}>Keys</Button>
      </div>
    </section>
  );
}

function ReaderName() {
  const reader = useReview((s) => s.study?.reader ?? "");
  const [name, setName] = useState(reader);
  const [refusal, setRefusal] = useState("");
  const id = useId();
  const save = async () => {
    try {
      await useReview.getState().rename(name.trim());
      setRefusal("");
    } catch (error) {
      setRefusal(error instanceof Error ? error.message : String(error));
    }
  };
  return (
    <form
      className="more-part"
      onSubmit={(event) => {
        event.preventDefault();
        void save();
      }}
    >
      <h3>
        <label htmlFor={id}>Your name in the log</label>
      </h3>
      <div className="more-row">
        <input
          id={id}
          type="text"
          value={name}
          maxLength={80}
          autoComplete="off"
          aria-describedby={`${id}-refusal`}
          onChange={(event) => {
            setName(event.target.value);
          }}
        />
        <button type="submit" className="button" disabled={name.trim() === "" || name.trim() === reader}>
          Save
        </button>
      </div>
      <p id={`${id}-refusal`} className="is-error" role="alert">
        {refusal}
      </p>
    </form>
  );
}

function ThemeChoice() {
  const [chosen, setChosen] = useState(readSettings().theme);
  return (
    <fieldset className="more-part">
      <legend>
        <h3>Colours</h3>
      </legend>
      <div className="more-row">
        {THEMES.map(({ theme, title }) => (
          <Button
            key={theme}
            pressed={chosen === theme}
            onClick={() => {
              applyTheme(theme);
              setChosen(theme);
            }}
          >
            {title}
          </Button>
        ))}
      </div>
    </fieldset>
  );
}
