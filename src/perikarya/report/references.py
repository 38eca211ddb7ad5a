"""Works a methods section may have to cite, and the numbering of those it does."""

from __future__ import annotations

import re
from collections.abc import Sequence

_OPEN, _CLOSE = "\ue000", "\ue001"  # private characters: no prose holds them
_CITED = re.compile(f"{_OPEN}([a-z0-9,-]+){_CLOSE}")

REFERENCES: dict[str, str] = {
    # optimisers and training
    "adam": "Kingma DP, Ba J. Adam: a method for stochastic optimization. ICLR 2015. doi:10.48550/arXiv.1412.6980",
    "adamw": "Loshchilov I, Hutter F. Decoupled weight decay regularization. ICLR 2019. doi:10.48550/arXiv.1711.05101",
    "cosine": "Loshchilov I, Hutter F. SGDR: stochastic gradient descent with warm restarts. ICLR 2017. doi:10.48550/arXiv.1608.03983",
    "lora": "Hu EJ, et al. LoRA: low-rank adaptation of large language models. ICLR 2022. doi:10.48550/arXiv.2106.09685",
    "head-first": "Kumar A, et al. Fine-tuning can distort pretrained features and underperform out-of-distribution. ICLR 2022. doi:10.48550/arXiv.2202.10054",
    "ema": "Polyak BT, Juditsky AB. Acceleration of stochastic approximation by averaging. SIAM J Control Optim 1992;30:838-855. doi:10.1137/0330046",
    "focal": "Lin TY, et al. Focal loss for dense object detection. ICCV 2017. doi:10.1109/ICCV.2017.324",
    "corn": "Shi X, Cao W, Raschka S. Deep neural networks for rank-consistent ordinal regression based on conditional probabilities. Pattern Anal Appl 2023;26:941-955. doi:10.1007/s10044-023-01181-9",
    "smoothing": "Szegedy C, et al. Rethinking the Inception architecture for computer vision. CVPR 2016. doi:10.1109/CVPR.2016.308",
    "mixup": "Zhang H, et al. mixup: beyond empirical risk minimization. ICLR 2018. doi:10.48550/arXiv.1710.09412",
    "cutmix": "Yun S, et al. CutMix: regularization strategy to train strong classifiers with localizable features. ICCV 2019. doi:10.1109/ICCV.2019.00612",
    "cutout": "DeVries T, Taylor GW. Improved regularization of convolutional neural networks with cutout. 2017. doi:10.48550/arXiv.1708.04552",
    "elastic": "Simard PY, Steinkraus D, Platt JC. Best practices for convolutional neural networks applied to visual document analysis. ICDAR 2003. doi:10.1109/ICDAR.2003.1227801",
    "stain": "Ruifrok AC, Johnston DA. Quantification of histochemical staining by color deconvolution. Anal Quant Cytol Histol 2001;23:291-299.",
    # imbalance
    "smote": "Chawla NV, et al. SMOTE: synthetic minority over-sampling technique. J Artif Intell Res 2002;16:321-357. doi:10.1613/jair.953",
    "borderline": "Han H, Wang WY, Mao BH. Borderline-SMOTE. ICIC 2005. doi:10.1007/11538059_91",
    "svm-smote": "Nguyen HM, Cooper EW, Kamei K. Borderline over-sampling for imbalanced data classification. Int J Knowl Eng Soft Data Paradig 2011;3:4-21. doi:10.1504/IJKESDP.2011.039875",
    "adasyn": "He H, et al. ADASYN: adaptive synthetic sampling approach for imbalanced learning. IJCNN 2008. doi:10.1109/IJCNN.2008.4633969",
    "smote-clean": "Batista GEAPA, Prati RC, Monard MC. A study of the behavior of several methods for balancing machine learning training data. SIGKDD Explor 2004;6:20-29. doi:10.1145/1007730.1007735",
    # networks
    "resnet": "He K, et al. Deep residual learning for image recognition. CVPR 2016. doi:10.1109/CVPR.2016.90",
    "efficientnet": "Tan M, Le QV. EfficientNet: rethinking model scaling for convolutional neural networks. ICML 2019. doi:10.48550/arXiv.1905.11946",
    "noisy-student": "Xie Q, et al. Self-training with noisy student improves ImageNet classification. CVPR 2020. doi:10.1109/CVPR42600.2020.01070",
    "vit": "Dosovitskiy A, et al. An image is worth 16x16 words: transformers for image recognition at scale. ICLR 2021. doi:10.48550/arXiv.2010.11929",
    "swin": "Liu Z, et al. Swin Transformer: hierarchical vision transformer using shifted windows. ICCV 2021. doi:10.1109/ICCV48922.2021.00986",
    "swinv2": "Liu Z, et al. Swin Transformer V2: scaling up capacity and resolution. CVPR 2022. doi:10.1109/CVPR52688.2022.01170",
    "bit": "Kolesnikov A, et al. Big Transfer (BiT): general visual representation learning. ECCV 2020. doi:10.1007/978-3-030-58558-7_29",
    "convnext": "Liu Z, et al. A ConvNet for the 2020s. CVPR 2022. doi:10.1109/CVPR52688.2022.01167",
    "panda": "Bulten W, et al. Artificial intelligence for diagnosis and Gleason grading of prostate cancer: the PANDA challenge. Nat Med 2022;28:154-163. doi:10.1038/s41591-021-01620-2",
    "uni": "Chen RJ, et al. Towards a general-purpose foundation model for computational pathology. Nat Med 2024;30:850-862. doi:10.1038/s41591-024-02857-3",
    "virchow2": "Zimmermann E, et al. Virchow2: scaling self-supervised mixed magnification models in pathology. 2024. doi:10.48550/arXiv.2408.00738",
    "h-optimus": "Saillard C, et al. H-optimus-0. Bioptimus, 2024.",
    "gigapath": "Xu H, et al. A whole-slide foundation model for digital pathology from real-world data. Nature 2024;630:181-188. doi:10.1038/s41586-024-07441-w",
    "phikon": "Filiot A, et al. Phikon-v2, a large and public feature extractor for biomarker prediction. 2024. doi:10.48550/arXiv.2409.09173",
    "midnight": "Karasikov M, et al. Training state-of-the-art pathology foundation models with orders of magnitude less data. 2025. doi:10.48550/arXiv.2504.05186",
    "dinov2": "Oquab M, et al. DINOv2: learning robust visual features without supervision. TMLR 2024. doi:10.48550/arXiv.2304.07193",
    "dinov3": "Siméoni O, et al. DINOv3. 2025. doi:10.48550/arXiv.2508.10104",
    # software
    "timm": "Wightman R. PyTorch Image Models. 2019. doi:10.5281/zenodo.4414861",
    "pytorch": "Paszke A, et al. PyTorch: an imperative style, high-performance deep learning library. NeurIPS 2019. doi:10.48550/arXiv.1912.01703",
    "sklearn": "Pedregosa F, et al. Scikit-learn: machine learning in Python. J Mach Learn Res 2011;12:2825-2830.",
    # evaluation
    "ensemble": "Lakshminarayanan B, Pritzel A, Blundell C. Simple and scalable predictive uncertainty estimation using deep ensembles. NeurIPS 2017. doi:10.48550/arXiv.1612.01474",
    "auc": "Hanley JA, McNeil BJ. The meaning and use of the area under a receiver operating characteristic (ROC) curve. Radiology 1982;143:29-36. doi:10.1148/radiology.143.1.7063747",
    "kappa": "Cohen J. Weighted kappa: nominal scale agreement with provision for scaled disagreement or partial credit. Psychol Bull 1968;70:213-220. doi:10.1037/h0026256",
    "ece": "Naeini MP, Cooper GF, Hauskrecht M. Obtaining well calibrated probabilities using Bayesian binning. AAAI 2015. doi:10.1609/aaai.v29i1.9602",
    "cluster-bootstrap": "Field CA, Welsh AH. Bootstrapping clustered data. J R Stat Soc B 2007;69:369-390. doi:10.1111/j.1467-9868.2007.00593.x",
    "expanded": "Hesterberg TC. What teachers should know about the bootstrap. Am Stat 2015;69:371-386. doi:10.1080/00031305.2015.1089789",
    "bca": "Efron B. Better bootstrap confidence intervals. J Am Stat Assoc 1987;82:171-185. doi:10.1080/01621459.1987.10478410",
    "wilson": "Wilson EB. Probable inference, the law of succession, and statistical inference. J Am Stat Assoc 1927;22:209-212. doi:10.1080/01621459.1927.10502953",
    "delong": "DeLong ER, DeLong DM, Clarke-Pearson DL. Comparing the areas under two or more correlated receiver operating characteristic curves. Biometrics 1988;44:837-845. doi:10.2307/2531595",
    "obuchowski": "Obuchowski NA. Nonparametric analysis of clustered ROC curve data. Biometrics 1997;53:567-578. doi:10.2307/2533958",
    "demsar": "Demšar J. Statistical comparisons of classifiers over multiple data sets. J Mach Learn Res 2006;7:1-30.",
    "holm": "Holm S. A simple sequentially rejective multiple test procedure. Scand J Stat 1979;6:65-70.",
    "permutation": "Phipson B, Smyth GK. Permutation P-values should never be zero. Stat Appl Genet Mol Biol 2010;9:39. doi:10.2202/1544-6115.1585",
    "temperature": "Guo C, et al. On calibration of modern neural networks. ICML 2017. doi:10.48550/arXiv.1706.04599",
    "isotonic": "Zadrozny B, Elkan C. Transforming classifier scores into accurate multiclass probability estimates. KDD 2002. doi:10.1145/775047.775151",
    "conformal": "Sadinle M, Lei J, Wasserman L. Least ambiguous set-valued classifiers with bounded error levels. J Am Stat Assoc 2019;114:223-234. doi:10.1080/01621459.2017.1395341",
    "adjusted-count": "Forman G. Quantifying counts and costs via classification. Data Min Knowl Discov 2008;17:164-206. doi:10.1007/s10618-008-0097-y",
    "probabilistic-count": "Bella A, et al. Quantification via probability estimators. ICDM 2010. doi:10.1109/ICDM.2010.75",
    "saerens": "Saerens M, Latinne P, Decaestecker C. Adjusting the outputs of a classifier to new a priori probabilities. Neural Comput 2002;14:21-41. doi:10.1162/089976602753284446",
    "cliff": "Cliff N. Dominance statistics: ordinal analyses to answer ordinal questions. Psychol Bull 1993;114:494-509. doi:10.1037/0033-2909.114.3.494",
    "mixed": "Laird NM, Ware JH. Random-effects models for longitudinal data. Biometrics 1982;38:963-974. doi:10.2307/2529876",
    "gee": "Liang KY, Zeger SL. Longitudinal data analysis using generalized linear models. Biometrika 1986;73:13-22. doi:10.1093/biomet/73.1.13",
    "confident": "Northcutt CG, Jiang L, Chuang IL. Confident learning: estimating uncertainty in dataset labels. J Artif Intell Res 2021;70:1373-1411. doi:10.1613/jair.1.12125",
    "learning-curve": "Figueroa RL, et al. Predicting sample size required for classification performance. BMC Med Inform Decis Mak 2012;12:8. doi:10.1186/1472-6947-12-8",
    "grad-cam": "Selvaraju RR, et al. Grad-CAM: visual explanations from deep networks via gradient-based localization. ICCV 2017. doi:10.1109/ICCV.2017.74",
    "grad-cam-plus": "Chattopadhay A, et al. Grad-CAM++: generalized gradient-based visual explanations for deep convolutional networks. WACV 2018. doi:10.1109/WACV.2018.00097",
    "score-cam": "Wang H, et al. Score-CAM: score-weighted visual explanations for convolutional neural networks. CVPR Workshops 2020. doi:10.1109/CVPRW50498.2020.00020",
    "eigen-cam": "Muhammad MB, Yeasin M. Eigen-CAM: class activation map using principal components. IJCNN 2020. doi:10.1109/IJCNN48605.2020.9206626",
    "rollout": "Abnar S, Zuidema W. Quantifying attention flow in transformers. ACL 2020. doi:10.18653/v1/2020.acl-main.385",
    # reporting
    "model-card": "Mitchell M, et al. Model cards for model reporting. FAT* 2019. doi:10.1145/3287560.3287596",
    "tripod": "Collins GS, et al. TRIPOD+AI statement: updated guidance for reporting clinical prediction models that use regression or machine learning methods. BMJ 2024;385:e078378. doi:10.1136/bmj-2023-078378",
    "claim": "Tejani AS, et al. Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 update. Radiol Artif Intell 2024;6:e240300. doi:10.1148/ryai.240300",
}  # fmt: skip

# networks of the zoo by the beginning of their names, the longest first
_NETWORKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("efficientnet_b7", ("efficientnet", "noisy-student")),
    ("efficientnet", ("efficientnet",)),
    ("resnet", ("resnet",)),
    ("hybrid_vit", ("vit", "bit")),
    ("hybrid2", ("efficientnet", "swinv2")),
    ("panda_vit", ("vit", "panda")),
    ("vit", ("vit",)),
    ("swinv2", ("swinv2",)),
    ("swin", ("swin",)),
    ("convnext", ("convnext",)),
    ("uni", ("uni",)),
    ("virchow2", ("virchow2",)),
    ("h_optimus", ("h-optimus",)),
    ("gigapath", ("gigapath",)),
    ("phikon", ("phikon",)),
    ("midnight", ("midnight",)),
    ("dinov2", ("dinov2",)),
    ("dinov3", ("dinov3",)),
)


def cite(*keys: str) -> str:
    """Return a mark that ``numbered`` turns into ``[1, 2]``; without keys, nothing."""
    unknown = [key for key in keys if key not in REFERENCES]
    if unknown:
        raise KeyError(f"no reference is called {unknown[0]}")
    return f"{_OPEN}{','.join(keys)}{_CLOSE}" if keys else ""


def works_on(arch: str) -> tuple[str, ...]:
    """Return what to cite for a network of the zoo; nothing for our own and for unknown ones."""
    return next((keys for name, keys in _NETWORKS if arch.startswith(name)), ())


def numbered(paragraphs: Sequence[str]) -> tuple[list[str], list[str]]:
    """Number the works in the order in which the text cites them.

    Returns
    -------
    The paragraphs with ``[1]`` in place of each mark, and the works, the first of which is number 1.
    """
    order: list[str] = []

    def number(match: re.Match[str]) -> str:
        keys = [key for key in match.group(1).split(",") if key in REFERENCES]
        order.extend(key for key in keys if key not in order)
        return f" [{', '.join(str(n) for n in sorted(order.index(k) + 1 for k in keys))}]" if keys else ""

    texts = [_CITED.sub(number, paragraph) for paragraph in paragraphs]
    return texts, [REFERENCES[key] for key in order]
