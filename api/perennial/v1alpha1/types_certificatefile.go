package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// CertificateFile puts a Certificate's chain, private key and CA into files on the machine on which
// perenniald runs, and tells a program there to read them again after each change. Nothing else
// than perenniald honours it: no part of Perennial in a cluster ever writes a file or runs a
// command.
//
// It is for administrators alone, for it runs commands as the user of perenniald. That is why it is
// an object of its own and belongs to no namespace: who may edit a Certificate may not thereby do
// that.
//
// Deleting it leaves the files as they are, for a program may be using them, unless deletionPolicy
// says otherwise. Several CertificateFiles cannot share a directory: the oldest has it.
//
// +kubebuilder:object:root=true
// +kubebuilder:storageversion
// +kubebuilder:subresource:status
// +kubebuilder:metadata:labels="app.kubernetes.io/version=v0.1.0"
// +kubebuilder:resource:scope=Cluster,shortName=certfile,categories=perennial
// +kubebuilder:printcolumn:name="Ready",type="string",JSONPath=`.status.conditions[?(@.type == "Ready")].status`
// +kubebuilder:printcolumn:name="Namespace",type="string",JSONPath=`.spec.certificateRef.namespace`
// +kubebuilder:printcolumn:name="Certificate",type="string",JSONPath=`.spec.certificateRef.name`
// +kubebuilder:printcolumn:name="Directory",type="string",JSONPath=`.spec.directory`
// +kubebuilder:printcolumn:name="Expires",type="string",JSONPath=`.status.deployed.notAfter`,priority=1
// +kubebuilder:printcolumn:name="Status",type="string",JSONPath=`.status.conditions[?(@.type == "Ready")].message`,priority=1
// +kubebuilder:printcolumn:name="Age",type="date",JSONPath=`.metadata.creationTimestamp`
type CertificateFile struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// What is written where, and who is told.
	Spec CertificateFileSpec `json:"spec"`

	// What is in the files at present. Written by perenniald.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status CertificateFileStatus `json:"status,omitempty"`
}

// CertificateFileList is a list of CertificateFiles.
//
// +kubebuilder:object:root=true
type CertificateFileList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []CertificateFile `json:"items"`
}

// CertificateFileSpec says what is written where, and who is told.
type CertificateFileSpec struct {
	// The Certificate whose Secret is written.
	CertificateRef CertificateReference `json:"certificateRef"`

	// Absolute path under which the files are found. It is a symbolic link, which perenniald makes: it
	// leads to a directory beside it, a new one for each version of the certificate, so that the
	// change from one version to the next is a single step and chain and key always match. It must lie
	// below one of perenniald's roots (--file-root), and there must be nothing there that is not such
	// a link.
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule=`self.matches('^(/[^/[:cntrl:]]+)+$') && !self.matches('/[.][.]?(/|$)')`,message=`directory must be an absolute path without '.', '..', '//' or a '/' at its end, such as /etc/perennial/web`
	Directory string `json:"directory"`

	// Names of the files in the directory.
	// +optional
	// +kubebuilder:default={}
	Files CertificateFileNames `json:"files,omitempty"`

	// Name or number of the user to whom the files and their directory belong; the user of perenniald
	// if left out. Only a perenniald that runs as root can give files to another user.
	// +optional
	// +kubebuilder:validation:XValidation:rule=`self.matches('^([a-z_][-a-z0-9_.]{0,30}[$]?|[0-9]{1,10})$')`,message=`owner must be the name of a user, or its number`
	// +kubebuilder:validation:MaxLength=32
	Owner string `json:"owner,omitempty"`

	// Name or number of the group to which the files and their directory belong; the group of
	// perenniald if left out.
	// +optional
	// +kubebuilder:validation:XValidation:rule=`self.matches('^([a-z_][-a-z0-9_.]{0,30}[$]?|[0-9]{1,10})$')`,message=`group must be the name of a group, or its number`
	// +kubebuilder:validation:MaxLength=32
	Group string `json:"group,omitempty"`

	// Permissions of the files, octal, in quotes. One of them is the private key, so others get none.
	// +optional
	// +kubebuilder:default="0600"
	// +kubebuilder:validation:MaxLength=4
	// +kubebuilder:validation:XValidation:rule=`self.matches('^0[46][046]0$')`,message=`mode must be in quotes, let the owner read and others nothing, and execute nothing: "0600", "0640", "0440" or the like`
	Mode string `json:"mode,omitempty"`

	// Permissions of the directory, octal, in quotes.
	// +optional
	// +kubebuilder:default="0755"
	// +kubebuilder:validation:MaxLength=4
	// +kubebuilder:validation:XValidation:rule=`self.matches('^0[57][057][05]$')`,message=`directoryMode must be in quotes, let the owner read and enter, and others not write: "0755", "0750", "0700" or the like`
	DirectoryMode string `json:"directoryMode,omitempty"`

	// What to do after the files have changed. Nothing if left out: for programs that look at their
	// files themselves.
	// +optional
	Reload *CertificateFileReload `json:"reload,omitempty"`

	// What becomes of the files when the CertificateFile is deleted, or gets another directory: Retain
	// leaves them, and an event names them; Delete removes them, the private key among them.
	// +optional
	// +kubebuilder:default=Retain
	DeletionPolicy FileDeletionPolicy `json:"deletionPolicy,omitempty"`
}

// FileDeletionPolicy says what becomes of the files of a CertificateFile that is deleted.
// +kubebuilder:validation:Enum=Retain;Delete
type FileDeletionPolicy string

const (
	// FileDeletionPolicyRetain leaves the files.
	FileDeletionPolicyRetain FileDeletionPolicy = "Retain"
	// FileDeletionPolicyDelete removes the files.
	FileDeletionPolicyDelete FileDeletionPolicy = "Delete"
)

// CertificateFileFinalizer keeps a CertificateFile until its files are removed.
const CertificateFileFinalizer = "perennial.dev/certificate-files"

// CertificateReference names a Certificate.
type CertificateReference struct {
	// Namespace of the Certificate.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`

	// Name of the Certificate.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// CertificateFileNames are the names of the files in the directory. Each is a plain name, and no
// two are the same.
//
// +kubebuilder:validation:XValidation:rule=`[[self.?certificate.orValue('tls.crt'), self.?privateKey.orValue('tls.key'), self.?ca.orValue('ca.crt'), self.?combined.orValue("")]].all(names, names.all(name, names.exists_one(other, other == name)))`,message=`files must not have the same name twice`
type CertificateFileNames struct {
	// The certificate, followed by those of the CAs between it and the root; PEM.
	// +optional
	// +kubebuilder:default=tls.crt
	Certificate FileName `json:"certificate,omitempty"`

	// The private key, PEM.
	// +optional
	// +kubebuilder:default=tls.key
	PrivateKey FileName `json:"privateKey,omitempty"`

	// The CA's certificate, PEM. Written if the Secret has one.
	// +optional
	// +kubebuilder:default=ca.crt
	CA FileName `json:"ca,omitempty"`

	// Private key and certificate in one file, PEM, in this order, as HAProxy and MongoDB want them.
	// Not written if left out.
	// +optional
	Combined FileName `json:"combined,omitempty"`
}

// FileName is a name without a directory.
//
// +kubebuilder:validation:MaxLength=255
// +kubebuilder:validation:XValidation:rule=`self.matches('^[A-Za-z0-9_][-A-Za-z0-9._]*$')`,message=`must be a plain file name: letters, digits, '_', '-' and '.', beginning with none of the last two`
type FileName string

// CertificateFileReload says who is told that files have changed. It happens once for each change,
// and again with growing pauses if it fails. A perenniald that was stopped in between makes up for
// it.
//
// +kubebuilder:validation:XValidation:rule=`[has(self.command), has(self.signal), has(self.systemdUnit)].filter(x, x).size() == 1`,message=`reload must have exactly one of command, signal and systemdUnit`
type CertificateFileReload struct {
	// Runs a command, as the user of perenniald, without a shell.
	// +optional
	Command *ReloadCommand `json:"command,omitempty"`

	// Sends a signal to a process.
	// +optional
	Signal *ReloadSignal `json:"signal,omitempty"`

	// Has systemd reload or restart a unit.
	// +optional
	SystemdUnit *ReloadSystemdUnit `json:"systemdUnit,omitempty"`
}

// ReloadCommand is a command to run.
type ReloadCommand struct {
	// The program, as an absolute path, and its arguments, one each: ["/usr/sbin/nginx", "-s",
	// "reload"]. There is no shell, so quotes, variables and pipes mean nothing. An exit status other
	// than 0 is a failure. The environment has PATH, and PERENNIAL_DIRECTORY with the path of the
	// files.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule=`self.size() > 0 && self[0].startsWith('/')`,message=`args must begin with the absolute path of a program, such as /usr/sbin/nginx`
	// +listType=atomic
	Args []string `json:"args"`

	// How long the command may take, from 1s to 10m. After that it is killed, which counts as a
	// failure.
	// +optional
	// +kubebuilder:default="30s"
	// +kubebuilder:validation:XValidation:rule=`duration(self) >= duration('1s') && duration(self) <= duration('10m')`,message=`timeout must be from 1s to 10m`
	Timeout *metav1.Duration `json:"timeout,omitempty"`
}

// ReloadSignalName is a signal that programs use for this purpose.
// +kubebuilder:validation:Enum=HUP;USR1;USR2;WINCH;TERM;INT;QUIT
type ReloadSignalName string

// ReloadSignal is a signal to send.
type ReloadSignal struct {
	// The signal, without SIG.
	// +optional
	// +kubebuilder:default=HUP
	Name ReloadSignalName `json:"name,omitempty"`

	// Absolute path of the file that holds the number of the process, such as /run/nginx.pid.
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule=`self.matches('^(/[^/[:cntrl:]]+)+$')`,message=`pidFile must be an absolute path such as /run/nginx.pid`
	PIDFile string `json:"pidFile"`
}

// ReloadAction is what systemd does with a unit.
// +kubebuilder:validation:Enum=reload;restart;reload-or-restart
type ReloadAction string

// ReloadSystemdUnit is a unit of systemd.
type ReloadSystemdUnit struct {
	// Name of the unit, such as nginx.service.
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[A-Za-z0-9_:.@\\\\-]+[.](service|target|socket|path|timer|scope|slice)$') && !self.startsWith('-')`,message=`name must be the name of a unit with its type, such as nginx.service`
	Name string `json:"name"`

	// What is done with it.
	// +optional
	// +kubebuilder:default=reload
	Action ReloadAction `json:"action,omitempty"`
}

// Types of a CertificateFile's conditions.
const (
	// ConditionReady is True when the files hold the certificate that the Certificate vouches for, it
	// has not expired and, with spec.reload, the reload after it has succeeded.
	ConditionReady = "Ready"

	// ConditionDeployed is True when the files hold the certificate that the Certificate last vouched
	// for.
	ConditionDeployed = "Deployed"

	// ConditionStalled is True, by the rules of kstatus, while the object is not ready and only a
	// person can change that. Otherwise it is not there.
	ConditionStalled = "Stalled"
)

// CertificateFileStatus is what is in the files at present.
type CertificateFileStatus struct {
	// The generation of the spec that the rest of the status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// Ready and Deployed. Stalled is there while only a person can end that Ready is not True.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// The certificate in the files.
	// +optional
	Deployed *DeployedCertificate `json:"deployed,omitempty"`

	// How telling of the last change went. Absent without spec.reload.
	// +optional
	Reload *ReloadStatus `json:"reload,omitempty"`
}

// DeployedCertificate is a certificate in files.
type DeployedCertificate struct {
	// Serial number, hexadecimal.
	Serial string `json:"serial"`

	// SHA-256 of the certificate's DER, hexadecimal.
	Fingerprint string `json:"fingerprint"`

	// When the certificate expires.
	NotAfter metav1.Time `json:"notAfter"`

	// When the files were written.
	Time metav1.Time `json:"time"`

	// The directory that the files are in.
	// +optional
	Directory string `json:"directory,omitempty"`
}

// ReloadResult is how a reload went.
// +kubebuilder:validation:Enum=Succeeded;Failed
type ReloadResult string

const (
	// ReloadSucceeded means that the command ended with status 0, the signal was sent, or systemd was
	// content.
	ReloadSucceeded ReloadResult = "Succeeded"
	// ReloadFailed means that it will be tried again.
	ReloadFailed ReloadResult = "Failed"
)

// ReloadStatus is how telling of the last change went.
type ReloadStatus struct {
	// Whether a change has still to be told of.
	// +optional
	Pending bool `json:"pending,omitempty"`

	// When it was last tried.
	// +optional
	LastTime *metav1.Time `json:"lastTime,omitempty"`

	// How the last try went.
	// +optional
	LastResult ReloadResult `json:"lastResult,omitempty"`

	// How often it has failed since it last succeeded.
	// +optional
	Failures int32 `json:"failures,omitempty"`

	// What the last failure said. Absent after a success.
	// +optional
	LastError string `json:"lastError,omitempty"`

	// When it will be tried again.
	// +optional
	NextAttempt *metav1.Time `json:"nextAttempt,omitempty"`
}
