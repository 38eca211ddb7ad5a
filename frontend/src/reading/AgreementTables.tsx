import { Fragment } from "react";
import { api } from "../api/client";
import type { Agreement, Kappa } from "../api/types";
import { useAnswer } from "../api/useAnswer";
import { Interval } from "./Interval";
import { axisStart, CEILING_WORDS, isEmpty, KAPPA_WORDS, kappaWords, sameWords, shareWords } from "./words";

/** How far readers agree with each other, with the labels of the study and with themselves. */
export function AgreementSection({ version }: { version: number }) {
  const answer = useAnswer("agreement", api.agreement, version);
  return (
    <section className="agreement" aria-label="Agreement" aria-busy={answer.waiting}>
      <h3>Agreement</h3>
      {answer.error !== null && <p className="is-error">{answer.error}</p>}
      {answer.waiting && <p>Readings are being compared …</p>}
      {answer.value && <AgreementTables agreement={answer.value} />}
    </section>
  );
}

export function AgreementTables({ agreement }: { agreement: Agreement }) {
  const rows = rowsOf(agreement);
  return (
    <>
      {isEmpty(agreement) ? (
        <p>Nothing can be compared yet: finish a round, or have somebody else read one.</p>
      ) : (
        <>
          <p>
            {KAPPA_WORDS} {CEILING_WORDS} In brackets: the range that holds the true value in 95 of 100 such
            studies.
          </p>
          <Overall rows={rows} />
          <PerClass rows={rows} />
        </>
      )}
      {agreement.notes.length > 0 && (
        <ul className="agreement-notes">
          {agreement.notes.map((note) => (
            <li key={note}>{note}</li>
          ))}
        </ul>
      )}
    </>
  );
}

/** One comparison, whatever its kind. */
interface Row {
  who: string;
  nCells: number;
  observed: number | null;
  /** Name of the statistic and its value; weighted ones count a mistake by how far it is off. */
  kappas: [name: string, kappa: Kappa][];
  perClass: { class_name: string; kappa: Kappa }[];
}

function rowsOf({ pairs, fleiss, intra }: Agreement): Row[] {
  const rows = pairs.map((pair): Row => {
    const weighted: Row["kappas"] = pair.weighted ? [["weighted", pair.weighted]] : [];
    return {
      who: `${pair.a} and ${pair.b}`,
      nCells: pair.n_cells,
      observed: pair.observed,
      kappas: [["Cohen", pair.cohen], ...weighted],
      perClass: pair.per_class,
    };
  });
  for (const { reader, n_cells: nCells, observed, cohen } of intra) {
    rows.push({ who: `${reader}, twice`, nCells, observed, kappas: [["Cohen", cohen]], perClass: [] });
  }
  if (fleiss) {
    const { readers, n_cells: nCells, kappa, per_class: perClass } = fleiss;
    const who = `all of ${readers.join(", ")}`;
    rows.push({ who, nCells, observed: null, kappas: [["Fleiss", kappa]], perClass });
  }
  return rows;
}

function Overall({ rows }: { rows: Row[] }) {
  const from = axisStart(rows.flatMap((row) => row.kappas.map(([, kappa]) => kappa)));
  return (
    <div className="table-frame">
      <table>
        <caption>Over all classes</caption>
        <thead>
          <tr>
            <th scope="col">Who</th>
            <th scope="col" className="is-number">
              Cells
            </th>
            <th scope="col" className="is-number">
              Same class
            </th>
            <th scope="col" colSpan={2}>
              Kappa
            </th>
            <td className="interval-column">
              <Axis from={from} />
            </td>
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <Fragment key={row.who}>
              {row.kappas.map(([name, kappa], k) => (
                <tr key={name}>
                  {k === 0 && (
                    <>
                      <th
                        scope="rowgroup"
                        rowSpan={row.kappas.length}
                        title={sameWords(row.who, row.nCells, row.observed)}
                      >
                        {row.who}
                      </th>
                      <td rowSpan={row.kappas.length} className="is-number">
                        {row.nCells.toLocaleString("en")}
                      </td>
                      <td rowSpan={row.kappas.length} className="is-number">
                        {row.observed === null ? "" : shareWords(row.observed)}
                      </td>
                    </>
                  )}
                  <td>{name}</td>
                  <td>{kappaWords(kappa)}</td>
                  <td className="interval-column">
                    <Interval kappa={kappa} from={from} />
                  </td>
                </tr>
              ))}
            </Fragment>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Axis({ from }: { from: number }) {
  return (
    <span className="interval-ends" aria-hidden="true">
      <span>{from === 0 ? "0" : "−1"}</span>
      <span>1</span>
    </span>
  );
}

/** Each class against all others. */
function PerClass({ rows }: { rows: Row[] }) {
  const known = rows.filter((row) => row.perClass.length > 0);
  const from = axisStart(known.flatMap((row) => row.perClass.map(({ kappa }) => kappa)));
  const classes = known[0]?.perClass.map((each) => each.class_name) ?? [];
  if (classes.length === 0) return null;
  return (
    <div className="table-frame">
      <table>
        <caption>Each class against all others</caption>
        <thead>
          <tr>
            <th scope="col">Who</th>
            {classes.map((name) => (
              <th key={name} scope="col">
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {known.map((row) => (
            <tr key={row.who}>
              <th scope="row">{row.who}</th>
              {row.perClass.map(({ class_name, kappa }) => (
                <td key={class_name}>
                  {kappaWords(kappa)}
                  <Interval kappa={kappa} from={from} />
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
